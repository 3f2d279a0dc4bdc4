from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobStage, JobStatus
from schemas.tables.base import Base


class Job(Base):
    """The processing of a finalized upload; clients poll it.

    `multipart_id` is written before the first part is sent, so that the next
    worker finds the parts that are stored.

    A trigger increments `revision` at every change that clients see, and
    notifies the requests that wait for the job.
    """

    __tablename__ = "jobs"

    id: Mapped[JobId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    # One job per upload: concurrent finalize requests create one row.
    upload_id: Mapped[UploadId] = mapped_column(ForeignKey("uploads.id"), unique=True)
    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    stage: Mapped[JobStage] = mapped_column(default=JobStage.TRANSFER)
    revision: Mapped[int] = mapped_column(server_default=text("1"))
    bytes_done: Mapped[int] = mapped_column(default=0)
    bytes_total: Mapped[int]
    bytes_at_claim: Mapped[int] = mapped_column(server_default=text("0"))
    """`bytes_done` when a worker last claimed the transfer; a larger `bytes_done` is progress since."""
    digested_bytes: Mapped[int] = mapped_column(server_default=text("0"))
    """Bytes from the start of the file that are verified and in stored parts."""
    digest_state: Mapped[bytes | None]
    """State of the sha256 over those bytes, with which the next worker resumes."""
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
