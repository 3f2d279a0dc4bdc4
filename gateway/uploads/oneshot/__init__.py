"""Whole files in one request, and objects that are in the bucket already."""
