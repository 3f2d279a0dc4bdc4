from datetime import datetime
from typing import Any, Final

from sqlalchemy import ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import BatchId, DocumentId, JobId, TenantId, UploadId, WebhookId
from schemas.lifecycle import JobKind, JobStatus, Priority
from schemas.steps import JobStage
from schemas.tables.base import Base

IS_OPEN: Final = text("jobs.status IN ('queued', 'processing')")
"""The condition of partial indexes: the planner does not compare a condition with parameters."""


READS_AGAIN: Final = text("jobs.kind = 'reprocess'")
"""The condition of a partial index, as `IS_OPEN`."""


class Job(Base):
    """What a client follows; workers work on its steps.

    A new job is added as queued, in the stage of its first step. A trigger on `steps` derives
    `status`, `stage`, `started_at` and `finished_at`. It increments `revision` at every change that
    clients see, and notifies the requests that wait for the job.
    """

    __tablename__ = "jobs"

    id: Mapped[JobId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[JobKind] = mapped_column(default=JobKind.UPLOAD, server_default=JobKind.UPLOAD)
    # One job per upload: concurrent finalize requests create one row.
    upload_id: Mapped[UploadId | None] = mapped_column(ForeignKey("uploads.id"), unique=True)
    document_id: Mapped[DocumentId | None]
    """The document that the job reads again, or whose page it renders. Without a foreign key: the job outlives it."""
    webhook_id: Mapped[WebhookId | None]
    """The endpoint whose deliveries the job repeats."""
    batch_id: Mapped[BatchId | None]
    """The batch whose line became this job. Without a foreign key: the job outlives it."""
    priority: Mapped[Priority] = mapped_column(
        default=Priority.INTERACTIVE, server_default=Priority.INTERACTIVE
    )
    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    stage: Mapped[JobStage] = mapped_column(default=JobStage.TRANSFER)
    revision: Mapped[int] = mapped_column(server_default=text("1"))
    result: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __table_args__ = (
        Index("ix_jobs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index(
            "ix_jobs_open",
            "created_at",
            postgresql_where=text("status IN ('queued', 'processing')"),
        ),
        # One reading at a time: two requests at once add one job.
        Index(
            "ix_jobs_open_of_document",
            "document_id",
            unique=True,
            postgresql_where=text("kind = 'reprocess' AND status IN ('queued', 'processing')"),
        ),
        # One replay at a time: together, several would exceed the rate.
        Index(
            "ix_jobs_open_of_webhook",
            "webhook_id",
            unique=True,
            postgresql_where=text("webhook_id IS NOT NULL AND status IN ('queued', 'processing')"),
        ),
        Index(
            "ix_jobs_batch",
            "batch_id",
            "created_at",
            "id",
            postgresql_where=text("batch_id IS NOT NULL"),
        ),
        Index("ix_jobs_tenant", "tenant_id", "created_at", "id"),
        # One for each filter of the list; `ix_job_labels_tenant` for metadata.
        Index("ix_jobs_tenant_status", "tenant_id", "status", "created_at", "id"),
        Index("ix_jobs_tenant_kind", "tenant_id", "kind", "created_at", "id"),
        Index("ix_jobs_tenant_stage", "tenant_id", "stage", "created_at", "id"),
        Index("ix_jobs_tenant_priority", "tenant_id", "priority", "created_at", "id"),
    )


class JobLabel(Base):
    """A name and value of the metadata of a job's upload, for the list of jobs.

    A trigger on `jobs` adds the labels of a new job. The metadata of an upload never changes.

    Attributes:
        label: digest of name and value; see `schemas.tables.job_filters.label_of`.
        tenant_id: as in the job, which has the foreign key.
        created_at: of the job.
    """

    __tablename__ = "job_labels"

    job_id: Mapped[JobId] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    label: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    tenant_id: Mapped[TenantId]
    created_at: Mapped[datetime]

    __table_args__ = (Index("ix_job_labels_tenant", "tenant_id", "label", "created_at", "job_id"),)
