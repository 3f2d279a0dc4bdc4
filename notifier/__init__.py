"""Publishes the outbox to the broker, and delivers events as signed webhooks."""
