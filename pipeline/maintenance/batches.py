"""Deletes batches that expired, and those whose body broke off, with their lines."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from schemas.ids import BatchId
from schemas.tables import retention
from schemas.tables.batches import Batch, BatchLine

BATCHES: Final = 100

LINES: Final = 5_000
"""Lines per transaction: a batch may have a million."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a sweep deleted."""

    batches: int
    lines: int


def sweep(context: Context, budget: Budget) -> Summary:
    """Delete expired batches: first the lines, then the row.

    A sweep that dies in between finds the row again. A gateway that still receives an expired batch
    can neither renew nor complete it.
    """
    batches = lines = 0
    while not budget.is_spent:
        with context.transaction() as session:
            found = session.scalars(
                retention.batches().order_by(Batch.expires_at).limit(BATCHES)
            ).all()
        for batch_id in found:
            deleted, is_empty = _delete_lines(context, batch_id, budget=budget)
            lines += deleted
            if is_empty:
                with context.transaction() as session:
                    session.execute(delete(Batch).where(Batch.id == batch_id))
                batches += 1
        if len(found) < BATCHES:
            break
    return Summary(batches=batches, lines=lines)


def _delete_lines(context: Context, batch_id: BatchId, *, budget: Budget) -> tuple[int, bool]:
    """Delete lines of a batch in short transactions, until none is left or the budget is spent.

    Returns:
        How many were deleted, and whether none is left.
    """
    piece = (
        select(BatchLine.line)
        .where(BatchLine.batch_id == batch_id)
        .order_by(BatchLine.line)
        .limit(LINES)
    )
    statement = (
        delete(BatchLine)
        .where(BatchLine.batch_id == batch_id, BatchLine.line.in_(piece))
        .returning(BatchLine.line)
    )
    deleted = 0
    count = LINES
    while count == LINES and not budget.is_spent:
        with context.transaction() as session:
            count = len(session.execute(statement).all())
        deleted += count
    return deleted, count < LINES
