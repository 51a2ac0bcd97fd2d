"""Benchmarks: each `bench/<name>.py` is one `make bench-<name>` and stands alone."""
