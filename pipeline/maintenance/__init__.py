"""Periodic tasks that end expired uploads and delete orphans and old rows."""
