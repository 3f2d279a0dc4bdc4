"""What was stored, and what was read from it."""
