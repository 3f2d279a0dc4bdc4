"""Tells others what happened: outbox to broker, broker to signed webhooks."""
