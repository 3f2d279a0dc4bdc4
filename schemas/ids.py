"""Identifiers with types: a string is not an id."""

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
