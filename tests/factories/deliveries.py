"""Endpoints, events and deliveries as the gateway and the notifier leave them."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from schemas.events.envelope import Event
from schemas.events.uploads import UploadFailed
from schemas.ids import DeliveryId, EventId, TenantId, UploadId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.tables.deliveries import Attempt, Delivery, delivery_id_of
from schemas.tables.events import EventRecord, record_of
from schemas.tables.inbox import NOTIFIER, InboxMessage
from schemas.tables.webhooks import Webhook

URL = "https://hooks.example.com/waybill"


def an_endpoint(tenant_id: TenantId, **columns: Any) -> Webhook:  # noqa: ANN401  # any column
    return Webhook(id=WebhookId(uuid4()), tenant_id=tenant_id, **{"url": URL, **columns})


def an_event_row(
    tenant_id: TenantId,
    *,
    at: datetime | None = None,
    data: Event | None = None,
    **columns: Any,  # noqa: ANN401  # any column
) -> EventRecord:
    """Return a published event, by default `upload.failed` of an upload of its own."""
    event = data or UploadFailed(
        upload_id=UploadId(uuid4()), filename="a.bin", code="staging_corrupt", detail="altered"
    )
    at = at or datetime.now(UTC)
    record = record_of(event, tenant_id=tenant_id, source="/tests", now=at)
    return EventRecord(**{"created_at": at, **record, **columns})


def an_inbox_row(event: EventRecord, *, deliveries: int) -> InboxMessage:
    """Return the record that the notifier has applied an event."""
    return InboxMessage(consumer=NOTIFIER, event_id=event.id, deliveries=deliveries)


def a_delivery(
    event: EventRecord,
    webhook_id: WebhookId,
    status: DeliveryStatus = DeliveryStatus.DELIVERED,
    **columns: Any,  # noqa: ANN401  # any column
) -> Delivery:
    is_pending = status is DeliveryStatus.PENDING
    values: dict[str, Any] = {
        "attempts_made": 0 if is_pending else 1,
        "next_attempt_at": event.created_at if is_pending else None,
        "settled_at": None if is_pending else event.created_at,
        "created_at": event.created_at,
        "reason": "endpoint_disabled" if status is DeliveryStatus.DISCARDED else None,
        **columns,
    }
    return Delivery(
        id=delivery_id_of(EventId(event.id), webhook_id),
        tenant_id=event.tenant_id,
        webhook_id=webhook_id,
        event_id=event.id,
        event_type=event.type,
        upload_id=event.upload_id,
        status=status,
        **values,
    )


def an_attempt(delivery_id: DeliveryId, number: int = 1, **columns: Any) -> Attempt:  # noqa: ANN401  # any column
    values: dict[str, Any] = {
        "started_at": datetime.now(UTC),
        "duration_us": 45_678,
        "outcome": "delivered",
        "status_code": 204,
        **columns,
    }
    return Attempt(delivery_id=delivery_id, number=number, **values)
