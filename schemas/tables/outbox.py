"""What the relay publishes: an event, to the exchange of events or to one work queue."""

from datetime import datetime

from sqlalchemy import Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import EventId
from schemas.tables.base import Base

WAKE_CHANNEL = "waybill_outbox"
"""PostgreSQL channel that notifies the relay of a committed insert."""


class OutboxMessage(Base):
    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    event_id: Mapped[EventId]
    queue: Mapped[str | None]
    """The work queue whose step the event starts; None for the exchange of events."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]

    __table_args__ = (
        Index("ix_outbox_event", "event_id"),
        Index(
            "ix_outbox_published",
            "published_at",
            postgresql_where=text("published_at IS NOT NULL"),
        ),
        Index(
            "ix_outbox_pending", "available_at", "id", postgresql_where=text("published_at IS NULL")
        ),
    )
