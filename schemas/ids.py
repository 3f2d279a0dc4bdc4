"""Identifiers, one type each."""

from typing import NewType
from uuid import UUID

TenantId = NewType("TenantId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)
UploadId = NewType("UploadId", UUID)
JobId = NewType("JobId", UUID)
DocumentId = NewType("DocumentId", UUID)
EventId = NewType("EventId", UUID)
WebhookId = NewType("WebhookId", UUID)
DeliveryId = NewType("DeliveryId", UUID)


def parse_uuid(text: str) -> UUID | None:
    """Parse a UUID in the form that we write; `uuid.UUID` also accepts others."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text else None
