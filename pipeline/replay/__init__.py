"""Replays: deliveries of an endpoint become due again, in batches."""
