"""Finalizing an upload makes its job; this shows how far it got."""
