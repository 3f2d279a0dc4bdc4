"""Tables, one module per noun. Importing this package registers every table."""

from schemas.tables import (
    audit,
    batches,
    dead_letters,
    deliveries,
    document_passwords,
    documents,
    engines,
    events,
    exports,
    idempotency,
    inbox,
    jobs,
    outbox,
    steps,
    tenants,
    uploads,
    webhooks,
)
from schemas.tables.base import Base

__all__ = [
    "Base",
    "audit",
    "batches",
    "dead_letters",
    "deliveries",
    "document_passwords",
    "documents",
    "engines",
    "events",
    "exports",
    "idempotency",
    "inbox",
    "jobs",
    "outbox",
    "steps",
    "tenants",
    "uploads",
    "webhooks",
]
