from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Self, cast

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from notifier import relay
from notifier.broker import BrokerUnavailable, PublishRefused
from notifier.relay import Batch, EventToPublish, OutboxRow
from schemas.ids import EventId, uuid7

WRITTEN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def an_event(*, traceparent: str | None = None) -> EventToPublish:
    return EventToPublish(
        id=EventId(uuid7(datetime.now(UTC))),
        type="upload.stored",
        body=b'{"specversion":"1.0"}',
        traceparent=traceparent,
        created_at=WRITTEN,
    )


def a_row() -> OutboxRow:
    event = an_event()
    return OutboxRow(id=1, event_id=event.id, queue=None, attempts=0, event=event)


def test_the_body_of_a_message_is_the_body_of_its_event() -> None:
    event = an_event()
    assert relay.message(event).body == event.body


def test_the_message_id_is_the_id_of_the_event() -> None:
    event = an_event()
    assert relay.message(event).message_id == str(event.id)


def test_the_type_of_a_message_is_the_type_of_its_event() -> None:
    assert relay.message(an_event()).type == "upload.stored"


def test_a_message_is_persistent() -> None:
    assert relay.message(an_event()).delivery_mode == 2


def test_the_timestamp_of_a_message_is_the_time_of_its_event() -> None:
    assert relay.message(an_event()).timestamp == WRITTEN


@pytest.mark.parametrize(
    ("traceparent", "headers"), [(None, {}), ("00-a-b-01", {"traceparent": "00-a-b-01"})]
)
def test_the_only_header_is_the_traceparent(
    traceparent: str | None, headers: dict[str, str]
) -> None:
    assert relay.message(an_event(traceparent=traceparent)).headers == headers


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10_000, 60)]
)
def test_the_backoff_doubles_up_to_a_minute(attempts: int, seconds: int) -> None:
    assert relay.backoff(attempts) == timedelta(seconds=seconds)


def test_rows_are_sorted_by_the_result_of_their_publish() -> None:
    published, refused, interrupted = a_row(), a_row(), a_row()
    batch = Batch.of(
        [published, refused, interrupted],
        [None, PublishRefused("no"), BrokerUnavailable("connection lost")],
    )
    assert batch.published == [published]
    assert batch.refused == [(refused, "PublishRefused: no")]
    assert batch.interrupted == [interrupted]
    assert batch.size == 3


def test_an_unexpected_error_is_a_refusal_of_its_row_only() -> None:
    good, broken = a_row(), a_row()
    batch = Batch.of([good, broken], [None, ValueError("Routing key too long")])
    assert batch.published == [good]
    assert batch.refused == [(broken, "ValueError: Routing key too long")]


class Counts:
    """A transaction whose connection counts the waiting events; None for an outage."""

    def __init__(self, *counts: int | None) -> None:
        self._counts = iter(counts)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        yield cast("AsyncConnection", self)

    async def execute(self, _: object) -> Self:
        return self

    def scalar_one(self) -> int:
        count = next(self._counts)
        if count is None:
            raise OperationalError("SELECT", {}, OSError("refused"))
        return count


@pytest.mark.anyio
async def test_a_wait_for_the_broker_is_logged_once_with_the_waiting_events() -> None:
    wait = relay.BrokerWait(transaction=Counts(30, 31, None).begin)
    with capture_logs() as logged:
        await wait.ended()
        for _ in range(3):
            await wait.began("blocked")
        for _ in range(3):
            await wait.ended()
        await wait.began("disconnected")
    found = [
        (each["event"], each.get("reason"), each["events"])
        for each in logged
        if each["log_level"] == "warning"
    ]
    assert found == [
        ("relay.waiting_for_broker", "blocked", 30),
        ("relay.broker_accepts_again", None, 31),
        ("relay.waiting_for_broker", "disconnected", None),
    ]
