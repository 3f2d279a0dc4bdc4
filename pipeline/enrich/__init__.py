"""Enrichment: sentences and entities of a page's text, by spaCy."""
