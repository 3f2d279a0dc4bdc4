from datetime import datetime
from typing import Any, Final

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.tables.base import Base

NEVER_FINALIZED: Final = text(
    "uploads.finalized_at IS NULL AND uploads.status IN ('failed', 'cancelled', 'expired')"
)
"""Ended uploads without a job; the condition of a partial index, which the planner does not compare
with parameters."""

LOCK_OF_UPLOAD: Final = {"key_share": True}
"""Excludes what `FOR UPDATE` excludes, except the check of foreign keys: `FOR NO KEY UPDATE`.

A transaction that changes a row for the second time makes PostgreSQL check the foreign keys of the row
again. With `FOR UPDATE`, a worker that changes two steps of a job would wait for the upload, while the
transaction that has locked the upload waits for the worker.
"""


class Upload(Base):
    """A file that a client uploads: what was declared, and its status."""

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
    """Digest of the whole file, hex, if the client declared it at create or finalize."""
    sniffed_type: Mapped[str | None]
    """Media type that the first bytes prove, once they are received."""
    staging: Mapped[StagingKind] = mapped_column(
        default=StagingKind.DIRECTORY, server_default=StagingKind.DIRECTORY
    )
    source_key: Mapped[str | None]
    """Key of the object of an upload by reference."""
    # The declarative base reserves the name "metadata".
    client_metadata: Mapped[dict[str, str]] = mapped_column(
        "metadata", server_default=text("'{}'::jsonb")
    )
    pipeline: Mapped[dict[str, Any] | None]
    """What the client chose of the pipeline, as `schemas.api.uploads.PipelineOptions`; None for the defaults."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    finalized_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]
    """When the retention of the tenant deleted the document. The objects may still be there; once the
    sweep has deleted them, this and `finalized_at` are None, and `expires_at` is that time."""

    __table_args__ = (
        CheckConstraint("size >= 0", name="size_not_negative"),
        Index("ix_uploads_open", "expires_at", postgresql_where=text("status = 'open'")),
        Index("ix_uploads_tenant", "tenant_id", "created_at", "id"),
        Index(
            "ix_uploads_never_finalized",
            "expires_at",
            postgresql_where=text(
                "finalized_at IS NULL AND status IN ('failed', 'cancelled', 'expired')"
            ),
        ),
        Index("ix_uploads_removed", "removed_at", postgresql_where=text("removed_at IS NOT NULL")),
    )


def a_reference(
    upload_id: UploadId,
    *,
    tenant_id: TenantId,
    object_key: str,
    filename: str,
    content_type: str | None,
    sha256: str | None,
    metadata: dict[str, str],
    pipeline: dict[str, Any] | None,
) -> Upload:
    """Return the row of an object in the bucket that is submitted; a worker measures it."""
    return Upload(
        id=upload_id,
        tenant_id=tenant_id,
        status=UploadStatus.FINALIZED,
        filename=filename,
        content_type=content_type,
        size=0,
        chunk_size=1,
        chunk_count=0,
        sha256=sha256,
        staging=StagingKind.REFERENCE,
        source_key=object_key,
        client_metadata=metadata,
        pipeline=pipeline,
        expires_at=func.now(),
        finalized_at=func.now(),
    )


class Chunk(Base):
    """An acknowledged chunk: its bytes were durable before this row was committed."""

    __tablename__ = "chunks"

    upload_id: Mapped[UploadId] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    index: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    crc32c: Mapped[bytes | None] = mapped_column(LargeBinary(4))
    """Finds damage in staging at a twentieth of the cost of a sha256. Big-endian."""
    stored_at: Mapped[datetime] = mapped_column(server_default=func.now())
