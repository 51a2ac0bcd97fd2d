"""From a file's bytes to text and blocks: one file a format, run in a process of its own."""
