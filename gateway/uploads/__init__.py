"""Receiving files in chunks."""
