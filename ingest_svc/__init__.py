"""Ingestion: takes documents in, reads and cuts them, and keeps account of them."""
