"""Source chunks become one verified object in the store."""
