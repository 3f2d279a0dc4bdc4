"""Operators' commands: tenants, API keys, quotas, secrets, dead letters."""
