"""Jobs: their progress, and waiting for their end."""
