"""Tenants that are being deleted, and those that were."""

from datetime import datetime

from sqlalchemy import Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import TenantId
from schemas.tables.base import Base


class TenantDeletion(Base):
    """The deletion of a tenant. The row stays: it refuses messages of the tenant that arrive later.

    Without a foreign key: the row of the tenant is deleted last.

    Attributes:
        name: of the tenant; a later tenant may have the same name.
        requested_by: who gave the order, as the actors of the audit log.
        quiet_at: from then on no worker holds a lease of the tenant.
        rows: how many rows were deleted, by table.
        objects: how many objects and multipart uploads were deleted.
        finished_at: when nothing of the tenant was left.
        checked_at: when a last look deleted what had arrived late.
    """

    __tablename__ = "tenant_deletions"

    tenant_id: Mapped[TenantId] = mapped_column(primary_key=True)
    name: Mapped[str]
    requested_by: Mapped[str]
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
    quiet_at: Mapped[datetime | None]
    rows: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    objects: Mapped[int] = mapped_column(server_default=text("0"))
    finished_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_tenant_deletions_unchecked",
            "requested_at",
            postgresql_where=text("checked_at IS NULL"),
        ),
        Index("ix_tenant_deletions_name", "name", "requested_at"),
    )
