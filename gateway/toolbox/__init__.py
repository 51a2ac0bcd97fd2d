"""The mesh's own tools, one a file."""
