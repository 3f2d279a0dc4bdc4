"""Deliveries: their log, and what repeats or tests them."""
