"""The ingest stage: reads a stored PDF and keeps its text, sentences and entities."""
