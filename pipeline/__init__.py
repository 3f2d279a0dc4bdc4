"""Transfers uploads to the object store, and reads the PDFs among them."""
