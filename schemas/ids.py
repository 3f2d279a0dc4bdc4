"""Identifiers, one type each."""

import secrets
from datetime import datetime
from typing import NewType
from uuid import UUID

TenantId = NewType("TenantId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)
UploadId = NewType("UploadId", UUID)
JobId = NewType("JobId", UUID)
DocumentId = NewType("DocumentId", UUID)
RevisionId = NewType("RevisionId", UUID)
EventId = NewType("EventId", UUID)
WebhookId = NewType("WebhookId", UUID)
DeliveryId = NewType("DeliveryId", UUID)
ExportId = NewType("ExportId", UUID)
BatchId = NewType("BatchId", UUID)


def parse_uuid(text: str) -> UUID | None:
    """Parse a UUID in the form that we write; `uuid.UUID` also accepts others."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text else None


def uuid7(at: datetime) -> UUID:
    """Return a new UUID that sorts by its time of creation, in milliseconds.

    Source: RFC 9562 section 5.7.

    Args:
        at: the time to put into the UUID.
    """
    milliseconds = int(at.timestamp() * 1000)
    version_and_variant = 0x7 << 76 | 0b10 << 62
    random_bits = secrets.randbits(12) << 64 | secrets.randbits(62)
    return UUID(int=milliseconds << 80 | version_and_variant | random_bits)


def first_uuid7(at: datetime) -> UUID:
    """Return the bound of the UUIDs of `uuid7` that are made at this time or later.

    A bound of ids is a bound of times, in milliseconds.
    """
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)
