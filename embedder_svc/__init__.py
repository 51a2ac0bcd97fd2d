"""The embedder: turns texts into vectors and orders texts by relevance, many callers together."""
