"""Deliveries, their attempts, and which process delivers to which endpoint."""

import hashlib
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Integer, SmallInteger, Update, func, text, update
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import DeliveryId, EventId, TenantId, UploadId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.tables.base import Base

WAKE_CHANNEL = "waybill_deliveries"
"""PostgreSQL channel that wakes the owner of a queue that is due: the id of the owner, or nothing for
a queue without an owner."""

IS_PENDING = "status = 'pending'"
IS_FAILED = "status IN ('exhausted', 'discarded')"


class Delivery(Base):
    """One event for one endpoint. The event's row in `events` has the bytes that are signed and sent.

    The id follows from the event and the endpoint (`waybill_delivery_id`), so that a repeated event
    adds no delivery. Its first half is that of the event's id: the table is partitioned by the time
    of the event, one partition per week, and the deliveries of an event are a range of ids.

    No foreign keys: their checks would lock the row of the endpoint for every delivery.
    """

    __tablename__ = "deliveries"

    id: Mapped[DeliveryId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId]
    webhook_id: Mapped[WebhookId]
    event_id: Mapped[EventId]
    event_type: Mapped[str]
    upload_id: Mapped[UploadId | None]
    status: Mapped[DeliveryStatus] = mapped_column(default=DeliveryStatus.PENDING)
    reason: Mapped[str | None]
    """Why the delivery is discarded."""
    ordered: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether it waits for the earlier deliveries of its upload to its endpoint."""
    attempts_made: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    next_attempt_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    settled_at: Mapped[datetime | None]

    __table_args__ = (
        # First attempts before retries: an endpoint that recovers gets new events at once.
        Index(
            "ix_deliveries_due",
            "webhook_id",
            text("(attempts_made > 0)"),
            "next_attempt_at",
            "id",
            postgresql_where=text(IS_PENDING),
        ),
        Index(
            "ix_deliveries_ordered",
            "webhook_id",
            "upload_id",
            "event_id",
            postgresql_where=text(f"{IS_PENDING} AND ordered"),
        ),
        Index(
            "ix_deliveries_failed",
            "webhook_id",
            "id",
            postgresql_where=text(IS_FAILED),
        ),
        Index("ix_deliveries_webhook", "webhook_id", "id"),
        {"postgresql_partition_by": "RANGE (id)"},
    )


class Attempt(Base):
    """One POST and its answer, recorded in success and in failure; partitioned as the deliveries are.

    Durations are microseconds; null for a phase that did not happen, as on a kept connection.
    """

    __tablename__ = "attempts"

    delivery_id: Mapped[DeliveryId] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    started_at: Mapped[datetime]
    duration_us: Mapped[int] = mapped_column(Integer)
    dns_us: Mapped[int | None] = mapped_column(Integer)
    connect_us: Mapped[int | None] = mapped_column(Integer)
    tls_us: Mapped[int | None] = mapped_column(Integer)
    first_byte_us: Mapped[int | None] = mapped_column(Integer)
    outcome: Mapped[str]
    status_code: Mapped[int | None] = mapped_column(SmallInteger)
    error: Mapped[str | None]
    response_excerpt: Mapped[str] = mapped_column(server_default="")
    remote_address: Mapped[str | None]
    request_headers: Mapped[dict[str, Any] | None]
    """As they were sent; secret values are replaced."""

    __table_args__ = ({"postgresql_partition_by": "RANGE (delivery_id)"},)


class DeliveryQueue(Base):
    """The deliveries of one endpoint as a queue, which one process owns while it is at work on it.

    The owner alone attempts the deliveries of the endpoint: bounds of concurrency and rate, the
    order of events and pauses hold without any lock. Whoever else adds or changes a delivery sets
    `due_at`; the owner clears it before it looks for due deliveries.
    """

    __tablename__ = "delivery_queues"

    webhook_id: Mapped[WebhookId] = mapped_column(
        ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True
    )
    tenant_id: Mapped[TenantId]
    due_at: Mapped[datetime | None]
    """From when on the owner, or any process if there is none, must look for due deliveries."""
    owner: Mapped[UUID | None]
    """The process in `deliverers`; it owns the queue while it is alive."""
    blocked_until: Mapped[datetime | None]
    """The endpoint asked for a pause, or throttles."""
    throttles: Mapped[int] = mapped_column(server_default=text("0"))
    """Throttling answers since the last success."""
    failing_since: Mapped[datetime | None]
    """The first failure since the last success."""
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    """Failed attempts since the last success."""

    __table_args__ = (
        Index("ix_delivery_queues_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("ix_delivery_queues_owner", "owner", postgresql_where=text("owner IS NOT NULL")),
    )


class FanOut(Base):
    """An event to many endpoints, which gets its deliveries in parts, in the order of the endpoints.

    Added with the row of the event in `inbox`, and deleted with the last part. The deliveries that
    `inbox` counts are those that the event has so far.
    """

    __tablename__ = "fan_outs"

    tenant_id: Mapped[TenantId] = mapped_column(primary_key=True)
    event_id: Mapped[EventId] = mapped_column(primary_key=True)
    reached: Mapped[WebhookId]
    """The endpoints up to this id have their deliveries."""


class Deliverer(Base):
    """A process that delivers webhooks; its queues go to others once it is not alive any more."""

    __tablename__ = "deliverers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    """Host and process id, for operators."""
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    alive_until: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    """Set by itself at its end, or by another process after `alive_until`; then its queues are free,
    and it is not alive again under this id."""


_FIRST_HALF: Final = 0xFFFFFFFFFFFFFFFF << 64
_SECOND_HALVES: Final = (0xA << 60, 0xAFFFFFFFFFFFFFFF)


def delivery_id_of(event_id: EventId, webhook_id: WebhookId) -> DeliveryId:
    """Return what the SQL function `waybill_delivery_id` returns."""
    digest = hashlib.md5(f"{event_id}{webhook_id}".encode(), usedforsecurity=False).hexdigest()
    return DeliveryId(UUID(hex=f"{event_id.hex[:16]}a{digest[:15]}"))


def delivery_ids_of(event_id: EventId) -> tuple[DeliveryId, DeliveryId]:
    """Return the first and the last id that a delivery of an event can have.

    Another event of the same millisecond may have the same ids between.
    """
    half = event_id.int & _FIRST_HALF
    first, last = (DeliveryId(UUID(int=half | second)) for second in _SECOND_HALVES)
    return first, last


def make_queue_due(webhook_id: WebhookId) -> Update:
    """Return the statement that makes a process look for due deliveries of an endpoint.

    Execute it after every change that makes a delivery due, in the same transaction.
    """
    return (
        update(DeliveryQueue)
        .where(DeliveryQueue.webhook_id == webhook_id)
        # `least` ignores a null.
        .values(due_at=func.least(DeliveryQueue.due_at, func.now()))
    )
