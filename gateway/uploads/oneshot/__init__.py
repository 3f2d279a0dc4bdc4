"""Submits whole files in one request, and objects that are already in the bucket."""
