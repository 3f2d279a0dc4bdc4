"""Reads and changes the row of a batch. A transaction locks it last."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, func, insert, select, update
from sqlalchemy.orm import Session

from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from schemas.errors import DomainError, ErrorCode
from schemas.events.batches import BatchCancelled, BatchCompleted, BatchFailed
from schemas.ids import BatchId, EventId, JobId, TenantId
from schemas.lifecycle import LIVE_BATCHES, BatchStatus, StepStatus
from schemas.queues import BATCH_PROCESSING
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables.base import table_of
from schemas.tables.batches import Batch
from schemas.tables.events import emit
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage

SOURCE: Final = "/waybill/pipeline/batch"

_BATCHES: Final = table_of(Batch)
_JOBS: Final = table_of(Job)

_ENDED: Final = (
    _BATCHES.c.rejected + _BATCHES.c.completed + _BATCHES.c.failed + _BATCHES.c.cancelled
)
_IS_OVER: Final = and_(_BATCHES.c.started == 0, _BATCHES.c.lines == _ENDED)
_COUNTS: Final = (
    _BATCHES.c.lines,
    _BATCHES.c.rejected,
    _BATCHES.c.started,
    _BATCHES.c.completed,
    _BATCHES.c.failed,
    _BATCHES.c.cancelled,
)


class BatchGone(DomainError):
    """The batch was deleted."""

    code = ErrorCode.BATCH_NOT_FOUND
    caused_by_client = True

    def __init__(self, batch_id: BatchId) -> None:
        super().__init__(f"batch {batch_id} was deleted")


class NotOver(Exception):
    """A line has not ended after all, because its job was tried again; the end must roll back."""


class TurnOver(Exception):
    """The batch was paused or cancelled since the turn began; the group of lines must roll back."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The lines of a batch by state."""

    lines: int
    rejected: int
    started: int
    completed: int
    failed: int
    cancelled: int

    @property
    def ended(self) -> int:
        return self.rejected + self.completed + self.failed + self.cancelled

    @property
    def waiting(self) -> int:
        return self.lines - self.started - self.ended


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """A batch as a turn reads it."""

    id: BatchId
    tenant_id: TenantId
    event_id: EventId
    status: BatchStatus
    metadata: Mapping[str, str]
    counts: Counts


def facts_of(session: Session, batch_id: BatchId) -> BatchFacts:
    """Return a batch, without a lock.

    Raises:
        BatchGone: the batch was deleted.
    """
    row = session.execute(
        select(
            _BATCHES.c.id,
            _BATCHES.c.tenant_id,
            _BATCHES.c.event_id,
            _BATCHES.c.status,
            _BATCHES.c.metadata,
            *_COUNTS,
        ).where(_BATCHES.c.id == batch_id)
    ).one_or_none()
    if row is None:
        raise BatchGone(batch_id)
    return BatchFacts(
        id=row.id,
        tenant_id=row.tenant_id,
        event_id=row.event_id,
        status=row.status,
        metadata=row.metadata,
        counts=_counts(row),
    )


def restart_if_failed(session: Session, batch_id: BatchId) -> None:
    """Take up a failed batch whose job is tried again."""
    session.execute(
        update(_BATCHES)
        .where(_BATCHES.c.id == batch_id, _BATCHES.c.status == BatchStatus.FAILED)
        .values(status=BatchStatus.PROCESSING, finished_at=None)
    )


def count_started(session: Session, batch_id: BatchId, *, started: int, failed: int) -> Counts:
    """Count lines that had their turn; the trigger wakes the step when half of the jobs have ended.

    Raises:
        TurnOver: the batch is paused, or has ended.
    """
    row = session.execute(
        update(_BATCHES)
        .where(_BATCHES.c.id == batch_id, _BATCHES.c.status == BatchStatus.PROCESSING)
        .values(
            started=_BATCHES.c.started + started,
            failed=_BATCHES.c.failed + failed,
            wake_at=(_BATCHES.c.started + started) // 2,
        )
        .returning(*_COUNTS)
    ).one_or_none()
    if row is None:
        raise TurnOver
    return _counts(row)


def count_cancelled(session: Session, batch_id: BatchId, *, cancelled: int) -> None:
    """Count waiting lines that were cancelled."""
    session.execute(
        update(_BATCHES)
        .where(_BATCHES.c.id == batch_id)
        .values(cancelled=_BATCHES.c.cancelled + cancelled)
    )


def wake(session: Session, event_id: EventId) -> None:
    """Give the event of the step to the broker once more, for a turn at once."""
    session.execute(insert(OutboxMessage), {"event_id": event_id, "queue": BATCH_PROCESSING})


def complete(
    session: Session,
    claimed: ClaimedStep,
    *,
    batch_id: BatchId,
    settings: StepSettings,
    retention: timedelta,
    now: datetime,
    traceparent: str | None,
) -> Counts:
    """Complete the step of a batch whose lines have all ended, and emit `batch.completed`.

    Raises:
        NotOver, StepCancelled, LeaseLost: see `lease.renew`; the transaction must roll back.
    """
    lines = facts_of(session, batch_id).counts.lines
    lease.complete(session, claimed, done=lines, total=lines, settings=settings)
    counts = _end(
        session,
        batch_id,
        status=BatchStatus.COMPLETED,
        condition=and_(_BATCHES.c.status.in_(LIVE_BATCHES), _IS_OVER),
        expires_at=now + retention,
    )
    if counts is None:
        raise NotOver
    _record_result(session, claimed.job_id, counts)
    emit(
        session,
        BatchCompleted(batch_id=batch_id, job_id=claimed.job_id, **_shown(counts)),
        tenant_id=claimed.tenant_id,
        source=SOURCE,
        now=now,
        traceparent=traceparent,
    )
    return counts


def complete_cancel(
    session: Session,
    claimed: ClaimedStep,
    *,
    batch_id: BatchId,
    settings: StepSettings,
    retention: timedelta,
    now: datetime,
    traceparent: str | None,
) -> Counts:
    """Complete the cleanup of a cancelled batch whose lines have all ended, and emit `batch.cancelled`.

    Raises:
        NotOver, LeaseLost: see `complete`; the transaction must roll back.
    """
    lease.complete(session, claimed, done=0, total=None, settings=settings)
    counts = _end(
        session,
        batch_id,
        status=BatchStatus.CANCELLED,
        condition=and_(_BATCHES.c.status == BatchStatus.CANCELLED, _IS_OVER),
        expires_at=now + retention,
    )
    if counts is None:
        raise NotOver
    emit(
        session,
        BatchCancelled(batch_id=batch_id, job_id=claimed.job_id, **_shown(counts)),
        tenant_id=claimed.tenant_id,
        source=SOURCE,
        now=now,
        traceparent=traceparent,
    )
    return counts


def fail(
    session: Session,
    *,
    batch_id: BatchId,
    job_id: JobId,
    tenant_id: TenantId,
    error: DomainError,
    settings: StepSettings,
    retention: timedelta,
    now: datetime,
    traceparent: str | None,
) -> StepStatus:
    """Record that no further line gets a turn, and emit `batch.failed`; return the status of the step.

    Raises:
        LeaseHeld: another worker works on the batch.
        UnknownStep: there is no such job.
    """
    ended_before = lease.fail(
        session, job_id=job_id, name=StepName.BATCH, error=error, settings=settings
    )
    if ended_before is not None:
        return ended_before
    counts = _end(
        session,
        batch_id,
        status=BatchStatus.FAILED,
        condition=_BATCHES.c.status.in_(LIVE_BATCHES),
        expires_at=now + retention,
    )
    if counts is not None:
        emit(
            session,
            BatchFailed(
                batch_id=batch_id,
                job_id=job_id,
                code=error.code,
                detail=str(error),
                **_shown(counts),
            ),
            tenant_id=tenant_id,
            source=SOURCE,
            now=now,
            traceparent=traceparent,
        )
    return StepStatus.FAILED


def _end(
    session: Session,
    batch_id: BatchId,
    *,
    status: BatchStatus,
    condition: ColumnElement[bool],
    expires_at: datetime,
) -> Counts | None:
    row = session.execute(
        update(_BATCHES)
        .where(_BATCHES.c.id == batch_id, condition)
        .values(status=status, finished_at=func.now(), expires_at=expires_at)
        .returning(*_COUNTS)
    ).one_or_none()
    return None if row is None else _counts(row)


def _record_result(session: Session, job_id: JobId, counts: Counts) -> None:
    session.execute(update(_JOBS).where(_JOBS.c.id == job_id).values(result=_shown(counts)))


def _shown(counts: Counts) -> dict[str, int]:
    return {
        "lines": counts.lines,
        "rejected": counts.rejected,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
    }


def _counts(row: Any) -> Counts:  # noqa: ANN401  # a row with the columns of `_COUNTS`
    return Counts(
        lines=row.lines,
        rejected=row.rejected,
        started=row.started,
        completed=row.completed,
        failed=row.failed,
        cancelled=row.cancelled,
    )
