"""Scopes of an API key: all that the key permits."""

from enum import StrEnum


class Scope(StrEnum):
    UPLOADS_WRITE = "uploads:write"
    UPLOADS_READ = "uploads:read"
    DOCUMENTS_READ = "documents:read"
    DOCUMENTS_WRITE = "documents:write"
    WEBHOOKS_WRITE = "webhooks:write"
    WEBHOOKS_READ = "webhooks:read"
    EXPORTS_WRITE = "exports:write"
    EXPORTS_READ = "exports:read"
