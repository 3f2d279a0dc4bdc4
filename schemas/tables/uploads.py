from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.tables.base import Base


class Upload(Base):
    """A file on its way in: what the client promised, and how far it got."""

    __tablename__ = "uploads"

    id: Mapped[UploadId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    status: Mapped[UploadStatus] = mapped_column(default=UploadStatus.OPEN)
    filename: Mapped[str]
    content_type: Mapped[str | None]
    size: Mapped[int]
    chunk_size: Mapped[int]
    chunk_count: Mapped[int]
    sha256: Mapped[str | None]
    """The whole file's digest, hex, where the client named one at create or finalize."""
    sniffed_type: Mapped[str | None]
    """What the first bytes show, once they are there."""
    staging: Mapped[StagingKind] = mapped_column(
        default=StagingKind.DIRECTORY, server_default=StagingKind.DIRECTORY
    )
    source_key: Mapped[str | None]
    """The object a `REFERENCE` names."""
    # "metadata" is taken by the declarative base.
    client_metadata: Mapped[dict[str, str]] = mapped_column(
        "metadata", server_default=text("'{}'::jsonb")
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    finalized_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("size >= 0", name="size_not_negative"),
        Index("ix_uploads_open", "expires_at", postgresql_where=text("status = 'open'")),
        Index("ix_uploads_tenant", "tenant_id", "created_at", "id"),
    )


class Chunk(Base):
    """A chunk that was acked: its bytes were synced to disk before this row was committed."""

    __tablename__ = "chunks"

    upload_id: Mapped[UploadId] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    index: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    crc32c: Mapped[bytes | None] = mapped_column(LargeBinary(4))
    """What finds damage in staging at a twentieth of the cost of a sha256; the highest byte first."""
    stored_at: Mapped[datetime] = mapped_column(server_default=func.now())
