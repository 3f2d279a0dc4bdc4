"""Deletes rows whose time is over."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, inspect, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from pipeline.resources import Resources
from pipeline.sweep.turn import Budget
from schemas.tables.deliveries import Delivery
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
    deliveries: int


def sweep(kit: Resources, budget: Budget) -> Summary:
    settings = kit.settings
    return Summary(
        # A row that was never published has no time there, and stays.
        outbox=_delete(
            kit, OutboxMessage.published_at, older_than=settings.outbox_retention, budget=budget
        ),
        inbox=_delete(
            kit, InboxMessage.processed_at, older_than=settings.inbox_retention, budget=budget
        ),
        idempotency=_delete(
            kit,
            IdempotentRequest.created_at,
            older_than=settings.idempotency_retention,
            budget=budget,
        ),
        # One that is still to be made has not ended, and stays. The attempts go with it.
        deliveries=_delete(
            kit, Delivery.settled_at, older_than=settings.delivery_retention, budget=budget
        ),
    )


def _delete(
    kit: Resources,
    time: InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None],
    *,
    older_than: timedelta,
    budget: Budget,
) -> int:
    """Delete the rows whose `time` is so long ago, in batches that lock little and not for long."""
    table = inspect(time.class_)
    key = table.primary_key
    batch = select(*key).where(time < func.now() - older_than).order_by(time).limit(BATCH)
    statement = delete(time.class_).where(tuple_(*key).in_(batch)).returning(key[0])
    deleted = 0
    count = BATCH
    while count == BATCH and not budget.is_spent:
        with kit.transaction() as session:
            count = len(session.execute(statement).all())
        deleted += count
    return deleted
