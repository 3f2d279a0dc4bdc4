"""Tables, one module per noun. Importing this package registers every table."""

from schemas.tables import (
    deliveries,
    documents,
    events,
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
    "deliveries",
    "documents",
    "events",
    "idempotency",
    "inbox",
    "jobs",
    "outbox",
    "steps",
    "tenants",
    "uploads",
    "webhooks",
]
