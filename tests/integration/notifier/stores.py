"""Processes that own queues, as `DatabaseStore`s, and faults of their connections."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from notifier import db
from notifier.delivery.attempt import AttemptResult
from notifier.delivery.outcome import AttemptOutcome
from notifier.delivery.settlement import DELIVERED, Settlement
from notifier.delivery.statements.connections import DedicatedConnection
from notifier.delivery.store import DatabaseStore, open_store
from notifier.delivery.work import DueDelivery, FinishedAttempt
from schemas.lifecycle import DeliveryStatus
from schemas.settings import DatabaseSettings


@asynccontextmanager
async def process(database: DatabaseSettings, engine: AsyncEngine) -> AsyncIterator[DatabaseStore]:
    """Yield the store of a living process; at the end of the block it is killed."""
    async with open_store(
        connect=db.connector(database, name="process under test"), transaction=engine.begin
    ) as store:
        assert await store.keep_alive()
        yield store


def lose_answer(monkeypatch: pytest.MonkeyPatch, *, count: int = 1) -> Callable[[], int]:
    """Let the connection break after the next statements were committed, before their answers.

    Returns:
        A function that returns how many answers were lost.
    """
    original = DedicatedConnection.rows
    lost = 0

    async def rows(
        self: DedicatedConnection, statement: LiteralString, values: Mapping[str, Any]
    ) -> object:
        nonlocal lost
        answer = await original(self, statement, values)
        if lost < count:
            lost += 1
            raise psycopg.OperationalError("the connection is lost")
        return answer

    monkeypatch.setattr(DedicatedConnection, "rows", rows)
    return lambda: lost


def retry_at(at: datetime) -> Settlement:
    return Settlement(status=DeliveryStatus.PENDING, next_attempt_at=at)


def finished(
    delivery: DueDelivery,
    *,
    settlement: Settlement = DELIVERED,
    status_code: int = 200,
    outcome: AttemptOutcome = AttemptOutcome.DELIVERED,
) -> FinishedAttempt:
    return FinishedAttempt(
        delivery=delivery,
        result=AttemptResult(
            outcome=outcome,
            started_at=datetime.now(UTC),
            duration=timedelta(milliseconds=20),
            status_code=status_code,
            remote_address="192.0.2.1",
        ),
        settlement=settlement,
        request_headers={"webhook-id": str(uuid4())},
    )


def failed(delivery: DueDelivery, *, retry: datetime, status_code: int = 500) -> FinishedAttempt:
    return finished(
        delivery,
        settlement=retry_at(retry),
        status_code=status_code,
        outcome=AttemptOutcome.REJECTED,
    )


def ids_of(due: Iterable[DueDelivery]) -> list[Any]:
    return [delivery.delivery_id for delivery in due]
