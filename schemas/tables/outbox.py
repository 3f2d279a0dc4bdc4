"""Messages waiting to be published.

A row is added in the transaction that made the fact true, so an upload cannot
be finalized without its event, nor an event exist without its upload. The
price: events leave up to one relay round later than the commit.
"""

from datetime import datetime

from sqlalchemy import Identity, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.events.envelope import Envelope, encode
from schemas.ids import EventId
from schemas.tables.base import Base

WAKE_CHANNEL = "waybill_outbox"
"""PostgreSQL channel on which a committed insert wakes the relay."""


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
        """Return the row for an event; add it to the session that changes the state."""
        return cls(
            event_id=envelope.id,
            routing_key=envelope.type,
            body=encode(envelope),
            traceparent=traceparent,
        )
