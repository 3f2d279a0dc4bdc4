from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobStage, JobStatus
from schemas.tables.base import Base


class Job(Base):
    """What happens to an upload after finalize; the one truth clients poll.

    `multipart_id` is written before the first part is sent, so that a worker
    taking over finds the parts its predecessor stored.

    `revision` is counted up by a trigger at every change a client can see, which
    also wakes those who watch the job.
    """

    __tablename__ = "jobs"

    id: Mapped[JobId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    # One job per upload: finalize called fifty times at once makes one row.
    upload_id: Mapped[UploadId] = mapped_column(ForeignKey("uploads.id"), unique=True)
    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    stage: Mapped[JobStage] = mapped_column(default=JobStage.TRANSFER)
    revision: Mapped[int] = mapped_column(server_default=text("1"))
    bytes_done: Mapped[int] = mapped_column(default=0)
    bytes_total: Mapped[int]
    bytes_at_claim: Mapped[int] = mapped_column(server_default=text("0"))
    """How much was done when a worker last took the transfer; more now means it got further."""
    digested_bytes: Mapped[int] = mapped_column(server_default=text("0"))
    """So many bytes from the front are checked and in the parts the store has."""
    digest_state: Mapped[bytes | None]
    """The sha256 of those bytes, as it stands in the middle of the file; a successor goes on from it."""
    pages_done: Mapped[int] = mapped_column(default=0)
    pages_total: Mapped[int | None]
    multipart_id: Mapped[str | None]
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    error_retryable: Mapped[bool | None]
    result: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    stored_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __table_args__ = (
        Index("ix_jobs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_jobs_tenant", "tenant_id", "created_at", "id"),
    )
