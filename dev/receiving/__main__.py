"""Writes docs/receiving-webhooks.md: `python -m dev.receiving`."""

from dev.receiving.page import write

write()
