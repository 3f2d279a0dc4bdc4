"""Transfers the staged bytes of an upload into one verified object."""
