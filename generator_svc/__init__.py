"""Makes text: streams what an engine writes, and frees the engine when the reader leaves."""
