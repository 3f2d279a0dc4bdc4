"""Exports: the rows of a query become a file in the bucket."""
