"""Batches: each line becomes a job when its turn comes."""
