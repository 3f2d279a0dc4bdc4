"""Recognises the text of pages that are pictures; engines run only in the sandbox child."""
