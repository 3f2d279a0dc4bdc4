"""Cancels a batch: no further line becomes a job, and a worker cancels the lines."""

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import transaction_time
from gateway.settings import EVENT_SOURCE
from schemas.events.batches import BatchCancelRequested
from schemas.ids import BatchId, TenantId
from schemas.lifecycle import LIVE_BATCHES, BatchStatus, Priority
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.batches import Batch
from schemas.tables.events import emit

log = structlog.stdlib.get_logger(__name__)


class BatchEndedMeanwhile(RuntimeError):
    """The batch ended although its step had not; the transaction must roll back."""


async def cancel_batch(
    session: AsyncSession, *, tenant_id: TenantId, batch_id: BatchId, settings: StepSettings
) -> bool:
    """Cancel a batch and its job; the step `cleanup` of the job cancels the lines.

    Once the transaction is committed, no line becomes a job any more: a worker that starts lines
    holds the step of the batch.

    Args:
        session: a transaction of the tenant's lock.
        tenant_id: the tenant that asks.
        batch_id: the batch.
        settings: shares of the queues.

    Returns:
        False if the tenant has no such batch, or the batch has ended or is cancelled: nothing is
        changed.
    """
    job_id = await session.scalar(
        select(Batch.job_id).where(
            Batch.id == batch_id, Batch.tenant_id == tenant_id, Batch.status.in_(LIVE_BATCHES)
        )
    )
    if job_id is None:
        return False
    # The step before the batch, as a worker locks them.
    ended = (await session.scalars(steps.cancel(job_id))).all()
    if not ended:
        return False
    event_id = emit(
        session,
        BatchCancelRequested(batch_id=batch_id, job_id=job_id),
        tenant_id=tenant_id,
        source=EVENT_SOURCE,
        now=await transaction_time(session),
    )
    steps.add_step(
        session,
        StepName.CLEANUP,
        job_id=job_id,
        tenant_id=tenant_id,
        priority=Priority.BULK,
        event_id=event_id,
    )
    await session.flush()
    for name in (*ended, StepName.CLEANUP):
        await session.execute(steps.release(tenant_id, name, settings=settings))
    cancelled = await session.scalar(
        update(Batch)
        .where(Batch.id == batch_id, Batch.status.in_(LIVE_BATCHES))
        .values(status=BatchStatus.CANCELLED)
        .returning(Batch.id)
    )
    if cancelled is None:
        raise BatchEndedMeanwhile(batch_id)
    log.info("batch.cancelled", batch_id=str(batch_id))
    return True
