"""Cancels a batch: no further line becomes a job, and a worker cancels the lines."""

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from schemas.events.batches import BatchCancelRequested
from schemas.ids import BatchId, JobId, TenantId
from schemas.lifecycle import LIVE_BATCHES, BatchStatus, Priority
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.batches import Batch
from schemas.tables.events import emit

log = structlog.stdlib.get_logger(__name__)


class BatchEndedMeanwhile(RuntimeError):
    """The batch ended although its step had not; the transaction must roll back."""


def cancel_batch(
    session: Session,
    batch_id: BatchId,
    *,
    job_id: JobId,
    tenant_id: TenantId,
    source: str,
    settings: StepSettings,
) -> bool:
    """Cancel a batch and its job; the step `cleanup` of the job cancels the lines.

    Once the transaction is committed, no line becomes a job any more: a worker that starts lines
    holds the step of the batch.

    Args:
        session: a transaction that has locked neither the batch nor its job.
        batch_id: the batch.
        job_id: its job.
        tenant_id: its owner.
        source: the component that cancels, for the event.
        settings: shares of the queues.

    Returns:
        False if the batch has ended or is cancelled: nothing is changed.
    """
    # The step before the batch, as a worker locks them.
    ended = session.scalars(steps.cancel(job_id)).all()
    if not ended:
        return False
    event_id = emit(
        session,
        BatchCancelRequested(batch_id=batch_id, job_id=job_id),
        tenant_id=tenant_id,
        source=source,
        now=session.scalars(select(func.now())).one(),
    )
    steps.add_step(
        session,
        StepName.CLEANUP,
        job_id=job_id,
        tenant_id=tenant_id,
        priority=Priority.BULK,
        event_id=event_id,
    )
    session.flush()
    for name in (*ended, StepName.CLEANUP):
        session.execute(steps.release(tenant_id, name, settings=settings))
    cancelled = session.scalar(
        update(Batch)
        .where(Batch.id == batch_id, Batch.status.in_(LIVE_BATCHES))
        .values(status=BatchStatus.CANCELLED)
        .returning(Batch.id)
    )
    if cancelled is None:
        raise BatchEndedMeanwhile(batch_id)
    log.info("batch.cancelled", batch_id=str(batch_id))
    return True
