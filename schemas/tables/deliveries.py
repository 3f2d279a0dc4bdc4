from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, Index, Interval, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import DeliveryId, EventId, TenantId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.tables.base import Base


class Delivery(Base):
    """One event for one endpoint; the pair is unique, so a repeated event adds no delivery.

    The event's row in `events` has the bytes that are signed and sent.
    """

    __tablename__ = "deliveries"

    id: Mapped[DeliveryId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    webhook_id: Mapped[WebhookId] = mapped_column(ForeignKey("webhooks.id"))
    event_id: Mapped[EventId]
    event_type: Mapped[str]
    status: Mapped[DeliveryStatus] = mapped_column(default=DeliveryStatus.PENDING)
    attempts_made: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    leased_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    settled_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("event_id", "webhook_id"),
        Index("ix_deliveries_due", "next_attempt_at", postgresql_where=text("status = 'pending'")),
        Index(
            "ix_deliveries_settled", "settled_at", postgresql_where=text("settled_at IS NOT NULL")
        ),
        Index("ix_deliveries_webhook", "webhook_id", "created_at", "id"),
    )


class Attempt(Base):
    """One POST and its answer, recorded in success and in failure."""

    __tablename__ = "attempts"

    delivery_id: Mapped[DeliveryId] = mapped_column(
        ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    duration: Mapped[timedelta] = mapped_column(Interval)
    outcome: Mapped[str]
    status_code: Mapped[int | None]
    error: Mapped[str | None]
    response_excerpt: Mapped[str] = mapped_column(server_default="")
    remote_address: Mapped[str | None]
