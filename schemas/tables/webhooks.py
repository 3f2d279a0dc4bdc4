from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Interval, func, text
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import TenantId, UploadId, WebhookId
from schemas.tables.base import Base

CHANGES_CHANNEL = "waybill_webhooks"
"""PostgreSQL channel that carries the id of a webhook whose row or secrets changed."""


class Webhook(Base):
    """An endpoint that receives the events of a tenant, or of one upload.

    The row of a deleted endpoint is kept as long as its deliveries.
    """

    __tablename__ = "webhooks"

    id: Mapped[WebhookId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    # Set for the callback of an upload. Without a foreign key: the row outlives its upload.
    upload_id: Mapped[UploadId | None] = mapped_column(index=True)
    url: Mapped[str]
    event_types: Mapped[list[str]] = mapped_column(ARRAY(SqlText), server_default=text("'{}'"))
    """Types, and prefixes as ``document.*``; empty means every type."""
    metadata_filter: Mapped[dict[str, Any] | None]
    """Events of uploads whose metadata contain these; null means every event."""
    description: Mapped[str | None]
    headers: Mapped[str | None]
    """Further headers of every request; encrypted (see `webhook_headers`)."""
    timeout: Mapped[timedelta | None] = mapped_column(Interval)
    concurrency: Mapped[int | None]
    rate: Mapped[float | None]
    """Most attempts per second."""
    ordered: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether the events of an upload are delivered one after the other, in their order."""
    version: Mapped[int] = mapped_column(server_default=text("1"))
    """Counts the changes of the row and of its secrets, by triggers."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    upload_ended_at: Mapped[datetime | None]
    """When the upload of a callback was cancelled, failed or expired, by a trigger. A sweep deletes
    the callback once its last events are delivered."""

    __table_args__ = (
        # A tenant may have as many callbacks as uploads: its endpoints are those without an upload.
        Index(
            "ix_webhooks_tenant",
            "tenant_id",
            "upload_id",
            postgresql_where=text("deleted_at IS NULL"),
        ),
        # An event to many endpoints gets its deliveries in this order.
        Index(
            "ix_webhooks_fan_out",
            "tenant_id",
            "id",
            postgresql_where=text("upload_id IS NULL AND deleted_at IS NULL"),
        ),
        # With the deleted ones, for exports of deliveries.
        Index("ix_webhooks_of_tenant", "tenant_id", "id"),
        Index(
            "ix_webhooks_ended",
            "upload_ended_at",
            postgresql_where=text("upload_ended_at IS NOT NULL AND deleted_at IS NULL"),
        ),
        Index(
            "ix_webhooks_deleted",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
    )


class WebhookSecret(Base):
    """A secret that signs the deliveries of an endpoint. Every secret that has not expired signs.

    `secret` is encrypted (see `webhook_secrets`) and decrypted only to sign, and to show the public
    key of an asymmetric secret.
    """

    __tablename__ = "webhook_secrets"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    webhook_id: Mapped[WebhookId] = mapped_column(
        ForeignKey("webhooks.id", ondelete="CASCADE"), index=True
    )
    scheme: Mapped[str]
    """``v1`` or ``v1a``."""
    secret: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
