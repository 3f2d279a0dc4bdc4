"""Webhooks: how many are delivered, and what a hostile receiver costs the others."""
