"""Changes of documents: read again, delete."""
