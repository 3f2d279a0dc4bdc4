"""Batches: many lines in one request, each of which becomes a job when its turn comes."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import BatchId, EventId, JobId, TenantId
from schemas.lifecycle import BatchEvents, BatchLineState, BatchStatus
from schemas.tables.base import Base


class Batch(Base):
    """A batch, and the number of its lines in each state.

    The lines that wait are those that no other counter counts. A trigger on `jobs` changes the line
    and the counters when the job of a line ends or starts again. A transaction locks lines, then
    what `schemas.tables.steps` lists, then the batch.

    Attributes:
        job_id: its own job, of kind `batch`; None while the batch is received, and once the job is
            deleted.
        event_id: the event that starts the step of its job; the trigger gives it to the broker
            again when many or all started lines have ended.
        lines: all lines of the request that are not empty, also rejected ones.
        started: lines whose jobs have not ended.
        wake_at: the number of started lines at which the trigger wakes the step.
        events: which events webhooks receive.
        client_metadata: added to the metadata of each line; a line's own values win.
        received_at: when the request ended.
        finished_at: when every line had ended.
        expires_at: when the sweep deletes the batch with its lines.
    """

    __tablename__ = "batches"

    id: Mapped[BatchId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[JobId | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="SET NULL"), unique=True
    )
    event_id: Mapped[EventId | None]
    status: Mapped[BatchStatus] = mapped_column(default=BatchStatus.RECEIVING)
    lines: Mapped[int] = mapped_column(server_default=text("0"))
    rejected: Mapped[int] = mapped_column(server_default=text("0"))
    started: Mapped[int] = mapped_column(server_default=text("0"))
    completed: Mapped[int] = mapped_column(server_default=text("0"))
    failed: Mapped[int] = mapped_column(server_default=text("0"))
    cancelled: Mapped[int] = mapped_column(server_default=text("0"))
    wake_at: Mapped[int] = mapped_column(server_default=text("0"))
    events: Mapped[BatchEvents] = mapped_column(
        default=BatchEvents.EACH, server_default=BatchEvents.EACH
    )
    # The declarative base reserves the name "metadata".
    client_metadata: Mapped[dict[str, str]] = mapped_column(
        "metadata", server_default=text("'{}'::jsonb")
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    received_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(
            "least(rejected, started, completed, failed, cancelled,"
            " lines - rejected - started - completed - failed - cancelled) >= 0",
            name="counts",
        ),
        Index("ix_batches_tenant", "tenant_id", "created_at", "id"),
        Index("ix_batches_expiry", "expires_at"),
        # Counts the batches that have not ended, whatever the number of the others.
        Index("ix_batches_live", "tenant_id", postgresql_where=text("finished_at IS NULL")),
    )


class BatchLine(Base):
    """One line of a batch.

    Attributes:
        line: its number in the request, from 1; empty lines are counted, and have no row.
        source: the line as `schemas.api.batches.BatchLine`; None for a line that cannot be decoded.
        job_id: the job that the line became. Without a foreign key: the report outlives the job.
        error_code: why the line is rejected or failed.
    """

    __tablename__ = "batch_lines"

    batch_id: Mapped[BatchId] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True
    )
    line: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[BatchLineState] = mapped_column(default=BatchLineState.WAITING)
    source: Mapped[dict[str, Any] | None]
    job_id: Mapped[JobId | None]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]

    __table_args__ = (
        # Also finds the lines that wait, in their order.
        Index("ix_batch_lines_state", "batch_id", "state", "line"),
        Index("ix_batch_lines_job", "job_id", postgresql_where=text("job_id IS NOT NULL")),
    )
