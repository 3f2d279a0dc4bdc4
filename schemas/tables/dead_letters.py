"""Messages from the dead-letter queues and from `waybill.unrouted`."""

from datetime import datetime
from typing import Any

from sqlalchemy import Identity, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import EventId, JobId, TenantId
from schemas.lifecycle import DeadLetterState
from schemas.tables.base import Base


class DeadLetter(Base):
    """A message that no consumer accepted, or that no queue received.

    Attributes:
        queue: the work queue that dead-lettered the message, or `waybill.unrouted`.
        fingerprint: equal for two deliveries of one message.
        event_id: this and the other ids are None if the body is not an event. They refer to no
            row: the publisher may be foreign.
        headers: the AMQP headers, with values that JSON cannot represent as text.
        reason: why the broker dead-lettered the message, such as `rejected` or `delivery_limit`;
            `unrouted` for a message without a queue, `unknown` without the broker's header.
        deaths: how often the queue dead-lettered the message.
        dead_lettered_at: the broker's time of the last dead-lettering.
        received_at: when the message was written to this table.
    """

    __tablename__ = "dead_letters"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    queue: Mapped[str]
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    message_id: Mapped[str | None]
    event_id: Mapped[EventId | None]
    event_type: Mapped[str | None]
    tenant_id: Mapped[TenantId | None]
    job_id: Mapped[JobId | None]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    headers: Mapped[dict[str, Any]]
    content_type: Mapped[str | None]
    reason: Mapped[str]
    deaths: Mapped[int]
    dead_lettered_at: Mapped[datetime | None]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    state: Mapped[DeadLetterState] = mapped_column(server_default=DeadLetterState.WAITING)
    settled_at: Mapped[datetime | None]

    __table_args__ = (
        # Only among waiting rows: a replayed message may be dead-lettered again.
        Index(
            "uq_dead_letters_waiting",
            "fingerprint",
            unique=True,
            postgresql_where=text("state = 'waiting'"),
        ),
        Index("ix_dead_letters_event", "event_id", postgresql_where=text("state = 'waiting'")),
        Index("ix_dead_letters_tenant", "tenant_id", "id"),
        Index("ix_dead_letters_state", "state", "received_at", "id"),
        Index("ix_dead_letters_queue", "queue", "state", "received_at", "id"),
        Index(
            "ix_dead_letters_settled",
            "settled_at",
            postgresql_where=text("settled_at IS NOT NULL"),
        ),
    )
