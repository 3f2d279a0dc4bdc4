"""The sweep that deletes expired batches with their lines."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, select

from pipeline.context import Context
from pipeline.maintenance import batches
from pipeline.maintenance.exclusive import Budget
from schemas.ids import BatchId
from schemas.lifecycle import BatchLineState, BatchStatus
from schemas.tables.base import table_of
from schemas.tables.batches import Batch, BatchLine
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.maintenance.leftovers import ample_budget, count


def added(
    context: Context,
    status: BatchStatus,
    *,
    lines: int,
    expires_in: timedelta,
    is_finished: bool = False,
) -> BatchId:
    """Add a batch with lines that wait."""
    batch_id = BatchId(uuid4())
    with context.transaction() as session:
        tenant_id = add_tenant(session)
    with context.transaction() as session:
        session.add(
            Batch(
                id=batch_id,
                tenant_id=tenant_id,
                status=status,
                lines=lines,
                finished_at=func.now() if is_finished else None,
                expires_at=func.now() + expires_in,
            )
        )
        session.flush()
        session.execute(
            insert(table_of(BatchLine)),
            [
                {"batch_id": batch_id, "line": line, "state": BatchLineState.WAITING}
                for line in range(1, lines + 1)
            ],
        )
    return batch_id


def left(context: Context) -> set[BatchId]:
    with context.transaction() as session:
        return set(session.scalars(select(Batch.id)))


AGO = -timedelta(minutes=1)


@pytest.mark.parametrize(
    "status",
    [BatchStatus.RECEIVING, BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.CANCELLED],
)
def test_an_expired_batch_is_deleted_with_its_lines(context: Context, status: BatchStatus) -> None:
    is_finished = status is not BatchStatus.RECEIVING
    lines = batches.LINES + 1
    added(context, status, lines=lines, expires_in=AGO, is_finished=is_finished)
    later = timedelta(minutes=1)
    kept = added(context, status, lines=3, expires_in=later, is_finished=is_finished)

    assert batches.sweep(context, ample_budget()) == batches.Summary(batches=1, lines=lines)
    assert left(context) == {kept}
    assert count(context, BatchLine) == 3
    assert batches.sweep(context, ample_budget()) == batches.Summary(batches=0, lines=0)


@pytest.mark.parametrize(
    "status", [BatchStatus.PROCESSING, BatchStatus.PAUSED, BatchStatus.CANCELLED]
)
def test_a_batch_that_has_not_ended_is_kept(context: Context, status: BatchStatus) -> None:
    batch_id = added(context, status, lines=1, expires_in=AGO)
    assert batches.sweep(context, ample_budget()) == batches.Summary(batches=0, lines=0)
    assert left(context) == {batch_id}


def test_a_sweep_without_time_leaves_the_rest_to_the_next(context: Context) -> None:
    added(context, BatchStatus.COMPLETED, lines=3, expires_in=AGO, is_finished=True)
    assert batches.sweep(context, Budget.of(timedelta(0))) == batches.Summary(batches=0, lines=0)
    assert batches.sweep(context, ample_budget()) == batches.Summary(batches=1, lines=3)
