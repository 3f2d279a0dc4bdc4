"""Benchmarks: what the README and the changelog claim of speed and memory comes from here."""
