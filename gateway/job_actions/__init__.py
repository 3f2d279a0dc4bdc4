"""Cancelling and retrying jobs of every kind, one by one or by a filter."""
