"""The feed of events, which clients poll instead of receiving webhooks."""
