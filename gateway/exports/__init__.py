"""Exports: create, list, show, download, delete."""
