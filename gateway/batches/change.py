"""Pauses and resumes a batch."""

import structlog
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.batches import queries
from gateway.batches.errors import BatchEnded
from schemas.api.batches import BatchView
from schemas.ids import BatchId, TenantId
from schemas.lifecycle import LIVE_BATCHES, BatchStatus
from schemas.queues import BATCH_PROCESSING
from schemas.tables.batches import Batch
from schemas.tables.outbox import OutboxMessage

log = structlog.stdlib.get_logger(__name__)


async def pause(session: AsyncSession, *, tenant_id: TenantId, batch_id: BatchId) -> BatchView:
    """Let no further line become a job; a repetition changes nothing.

    Raises:
        BatchNotFound: the tenant has no such batch.
        BatchEnded: the batch is completed, failed or cancelled.
    """
    return await _change(session, BatchStatus.PAUSED, tenant_id=tenant_id, batch_id=batch_id)


async def resume(session: AsyncSession, *, tenant_id: TenantId, batch_id: BatchId) -> BatchView:
    """Let the lines of a paused batch have their turns again; a repetition changes nothing.

    Raises:
        BatchNotFound: the tenant has no such batch.
        BatchEnded: the batch is completed, failed or cancelled.
    """
    return await _change(session, BatchStatus.PROCESSING, tenant_id=tenant_id, batch_id=batch_id)


async def _change(
    session: AsyncSession, status: BatchStatus, *, tenant_id: TenantId, batch_id: BatchId
) -> BatchView:
    event_id = await session.scalar(
        update(Batch)
        .where(
            Batch.id == batch_id,
            Batch.tenant_id == tenant_id,
            Batch.status.in_(LIVE_BATCHES - {status}),
        )
        .values(status=status)
        .returning(Batch.event_id)
    )
    if event_id is not None:
        log.info("batch.changed", batch_id=str(batch_id), status=status)
        if status is BatchStatus.PROCESSING:
            # The message of a paused batch waits in the longest tier.
            await session.execute(
                insert(OutboxMessage), {"event_id": event_id, "queue": BATCH_PROCESSING}
            )
    batch = await queries.batch_of(session, tenant_id=tenant_id, batch_id=batch_id)
    if batch.status not in LIVE_BATCHES:
        raise BatchEnded(batch_id, status=batch.status)
    return batch
