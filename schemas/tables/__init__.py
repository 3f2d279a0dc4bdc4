"""Tables, one module per noun. Importing this package registers every table."""

from schemas.tables import (
    deliveries,
    documents,
    idempotency,
    inbox,
    jobs,
    outbox,
    tenants,
    uploads,
    webhooks,
)
from schemas.tables.base import Base

__all__ = [
    "Base",
    "deliveries",
    "documents",
    "idempotency",
    "inbox",
    "jobs",
    "outbox",
    "tenants",
    "uploads",
    "webhooks",
]
