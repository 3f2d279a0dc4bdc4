"""The malware scan: a stored file is sent to clamd before anything reads it."""
