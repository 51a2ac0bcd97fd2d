"""One file a chunking strategy; `ingest_svc.chunking` says what a strategy is."""
