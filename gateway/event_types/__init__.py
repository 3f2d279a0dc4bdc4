"""The catalogue of the events that endpoints receive."""
