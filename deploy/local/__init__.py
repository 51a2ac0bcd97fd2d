"""The whole mesh on one machine: started, watched, restarted and stopped by one process."""
