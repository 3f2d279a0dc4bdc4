"""Cancels a batch: no further line becomes a job, and a worker cancels the lines."""

from functools import partial

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.settings import EVENT_SOURCE
from schemas.ids import BatchId, TenantId
from schemas.lifecycle import LIVE_BATCHES
from schemas.runtime.jobs import cancel_batch as shared
from schemas.settings import StepSettings
from schemas.tables.batches import Batch


async def cancel_batch(
    session: AsyncSession, *, tenant_id: TenantId, batch_id: BatchId, settings: StepSettings
) -> bool:
    """Cancel a batch and its job; see `schemas.runtime.jobs.cancel_batch`.

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
    return await session.run_sync(
        partial(
            shared.cancel_batch,
            batch_id=batch_id,
            job_id=job_id,
            tenant_id=tenant_id,
            source=EVENT_SOURCE,
            settings=settings,
        )
    )
