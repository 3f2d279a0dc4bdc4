"""Events that the relay publishes, and `emit`, which adds an event.

An event is added in the transaction that makes it true: an upload is never
finalized without its event, and no event exists without its upload. The price:
the relay publishes an event some time after the commit.
"""

from datetime import datetime
from uuid import uuid4

from sqlalchemy import Identity, Index, LargeBinary, func, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from schemas.events.envelope import Envelope, Event, encode
from schemas.ids import EventId, TenantId
from schemas.tables.base import Base

WAKE_CHANNEL = "waybill_outbox"
"""PostgreSQL channel that notifies the relay of a committed insert."""


class OutboxMessage(Base):
    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    event_id: Mapped[EventId] = mapped_column(unique=True)
    routing_key: Mapped[str]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    traceparent: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]

    __table_args__ = (
        Index(
            "ix_outbox_published",
            "published_at",
            postgresql_where=text("published_at IS NOT NULL"),
        ),
        Index(
            "ix_outbox_pending", "available_at", "id", postgresql_where=text("published_at IS NULL")
        ),
    )

    @classmethod
    def carrying(cls, envelope: Envelope, *, traceparent: str | None = None) -> "OutboxMessage":
        return cls(
            event_id=envelope.id,
            routing_key=envelope.type,
            body=encode(envelope),
            traceparent=traceparent,
        )


def emit(
    session: Session | AsyncSession,
    event: Event,
    *,
    tenant_id: TenantId,
    source: str,
    now: datetime,
    traceparent: str | None = None,
) -> None:
    """Add an event to the outbox; the relay publishes it once the session's transaction commits.

    Args:
        session: the session that makes the event true.
        event: the data.
        tenant_id: the tenant that the event belongs to.
        source: the component that emits the event, as a URI path.
        now: the time of the event.
        traceparent: W3C trace context that the message carries on.
    """
    envelope = Envelope(
        id=EventId(uuid4()),
        source=source,
        subject=str(event.subject),
        time=now,
        tenantid=tenant_id,
        data=event,
    )
    session.add(OutboxMessage.carrying(envelope, traceparent=traceparent))
