"""Deletes rows whose retention time is over."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, inspect, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from schemas.tables import retention
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.idempotency import IdempotentRequest
from schemas.tables.inbox import InboxMessage
from schemas.tables.outbox import OutboxMessage

BATCH: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How many rows were deleted."""

    outbox: int
    inbox: int
    idempotency: int
    dead_letters: int


def sweep(context: Context, budget: Budget) -> Summary:
    settings = context.settings
    return Summary(
        # An unpublished row has no `published_at` and is kept.
        outbox=_delete(
            context, OutboxMessage.published_at, older_than=settings.outbox_retention, budget=budget
        ),
        inbox=_delete(
            context, InboxMessage.processed_at, older_than=settings.inbox_retention, budget=budget
        ),
        idempotency=_delete(
            context,
            IdempotentRequest.created_at,
            older_than=settings.idempotency_retention,
            budget=budget,
        ),
        # A waiting dead letter has no `settled_at` and is kept.
        dead_letters=_delete(
            context, DeadLetter.settled_at, older_than=settings.dead_letter_retention, budget=budget
        ),
    )


def _delete(
    context: Context,
    time: InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None],
    *,
    older_than: timedelta,
    budget: Budget,
) -> int:
    """Delete the rows whose `time` is older than `older_than`, in batches of short transactions."""
    table = inspect(time.class_)
    key = table.primary_key
    batch = retention.rows(time, kept_for=older_than).with_only_columns(*key).order_by(time)
    statement = delete(time.class_).where(tuple_(*key).in_(batch.limit(BATCH))).returning(key[0])
    deleted = 0
    count = BATCH
    while count == BATCH and not budget.is_spent:
        with context.transaction() as session:
            count = len(session.execute(statement).all())
        deleted += count
    return deleted
