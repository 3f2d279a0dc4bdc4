from datetime import datetime

from sqlalchemy import ForeignKey, Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import TenantId, UploadId, WebhookId
from schemas.tables.base import Base


class Webhook(Base):
    """An endpoint that receives the events of a tenant, or of one upload.

    `secret` is encrypted (see `webhook_secrets`) and decrypted only to sign. The row of
    a deleted endpoint is kept, so that the log of its deliveries stays complete.
    """

    __tablename__ = "webhooks"

    id: Mapped[WebhookId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    # Set for the callback of an upload.
    upload_id: Mapped[UploadId | None] = mapped_column(ForeignKey("uploads.id"), index=True)
    url: Mapped[str]
    event_types: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    """Empty means every type."""
    description: Mapped[str | None]
    secret: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]

    __table_args__ = (
        # A tenant may have as many callbacks as uploads: its endpoints are those without an upload.
        Index(
            "ix_webhooks_tenant",
            "tenant_id",
            "upload_id",
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )
