"""Benchmarks: the source of every claim about speed and memory in the documentation."""
