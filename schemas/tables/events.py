"""Every event, and `emit`, which adds an event.

An event is added in the transaction that makes it true: an upload is never
finalized without its event, and no event exists without its upload. The outbox,
deliveries and steps refer to the event; its bytes are stored once.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Index, LargeBinary, Select, Sequence, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from schemas import topology
from schemas.events.envelope import Envelope, Event, encode
from schemas.ids import (
    BatchId,
    DocumentId,
    EventId,
    ExportId,
    JobId,
    TenantId,
    UploadId,
    WebhookId,
    uuid7,
)
from schemas.tables.base import Base, table_of
from schemas.tables.outbox import OutboxMessage

POSITIONS = Sequence("event_positions", metadata=Base.metadata)

FEED_CHANNEL: Final = "waybill_feed"
"""PostgreSQL channel that carries a tenant whose events got positions."""

NO_FEED: Final = 0
"""The position of an event that is in no feed; positions of the sequence begin at 1."""


class EventRecord(Base):
    """An event. The table is partitioned by the time in `id`, one partition per week.

    `position` is the order of the feed. One writer assigns it after the commit of the event, so
    that a reader who asks for the events after a position misses no event. An event that tests one
    endpoint is in no feed: it has the position `NO_FEED` from the start.
    """

    __tablename__ = "events"

    id: Mapped[EventId] = mapped_column(primary_key=True)
    position: Mapped[int | None]
    tenant_id: Mapped[TenantId]
    type: Mapped[str]
    subject: Mapped[str]
    upload_id: Mapped[UploadId | None]
    job_id: Mapped[JobId | None]
    document_id: Mapped[DocumentId | None]
    export_id: Mapped[ExportId | None]
    batch_id: Mapped[BatchId | None]
    endpoint_id: Mapped[WebhookId | None]
    # The bytes of the message and of the webhook: exactly these are signed and sent.
    body: Mapped[bytes] = mapped_column(LargeBinary)
    traceparent: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_events_feed", "tenant_id", "position"),
        # By time, for replays and the ledger.
        Index("ix_events_tenant", "tenant_id", "id"),
        Index("ix_events_job", "job_id"),
        Index("ix_events_without_position", "id", postgresql_where=text("position IS NULL")),
        {"postgresql_partition_by": "RANGE (id)"},
    )


_EVENTS: Final = table_of(EventRecord)
_OUTBOX: Final = table_of(OutboxMessage)


def record_of(
    event: Event,
    *,
    tenant_id: TenantId,
    source: str,
    now: datetime,
    traceparent: str | None = None,
) -> dict[str, Any]:
    """Return the columns of a new event, by name; see `emit`."""
    envelope = Envelope(
        id=EventId(uuid7(now)),
        source=source,
        subject=str(event.subject),
        time=now,
        tenantid=tenant_id,
        data=event,
    )
    return {
        "id": envelope.id,
        "tenant_id": tenant_id,
        "type": envelope.type,
        "subject": envelope.subject,
        **envelope.references,
        "body": encode(envelope),
        "traceparent": traceparent,
    }


def emit(
    session: Session | AsyncSession,
    event: Event,
    *,
    tenant_id: TenantId,
    source: str,
    now: datetime,
    traceparent: str | None = None,
) -> EventId:
    """Add an event; the relay publishes it once the session's transaction commits.

    An event that only starts a step is not published here: the release of the step publishes it.

    Args:
        session: the session that makes the event true.
        event: the data.
        tenant_id: the tenant that the event belongs to.
        source: the component that emits the event, as a URI path.
        now: the time of the event, by the database's clock: its id, and so its partition, follow it.
        traceparent: W3C trace context that the message carries on.

    Returns:
        The id of the event, with which `add_step` refers to it.
    """
    record = record_of(event, tenant_id=tenant_id, source=source, now=now, traceparent=traceparent)
    session.add(EventRecord(**record))
    event_id: EventId = record["id"]
    if topology.is_published(event.TYPE):
        session.add(OutboxMessage(event_id=event_id))
    return event_id


def emit_at_once(
    session: Session,
    event: Event,
    *,
    tenant_id: TenantId,
    source: str,
    now: datetime,
    traceparent: str | None = None,
) -> EventId:
    """Add an event as `emit` does, at once and without the object mapper, which takes longer."""
    record = record_of(event, tenant_id=tenant_id, source=source, now=now, traceparent=traceparent)
    session.execute(insert(_EVENTS), record)
    event_id: EventId = record["id"]
    if topology.is_published(event.TYPE):
        session.execute(insert(_OUTBOX), {"event_id": event_id})
    return event_id


def events_after(
    tenant_id: TenantId, *, position: int, limit: int
) -> Select[int | None, EventId, str, bytes]:
    """Return the query for the next page of a tenant's feed: position, id, type and body.

    A reader that continues after the last position of each page gets every event once, in the
    order of the positions.

    Args:
        tenant_id: the owner of the events.
        position: the last position that the reader has; 0 for the start of the feed.
        limit: most events.
    """
    return (
        select(EventRecord.position, EventRecord.id, EventRecord.type, EventRecord.body)
        .where(EventRecord.tenant_id == tenant_id, EventRecord.position > position)
        .order_by(EventRecord.position)
        .limit(limit)
    )
