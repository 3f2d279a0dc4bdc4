from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from notifier import relay
from notifier.broker import BrokerUnavailable, PublishRefused
from notifier.relay import Batch, OutboxRow
from schemas.ids import EventId

WRITTEN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def a_row(*, traceparent: str | None = None) -> OutboxRow:
    return OutboxRow(
        id=1,
        event_id=EventId(uuid4()),
        routing_key="upload.stored",
        body=b'{"specversion":"1.0"}',
        traceparent=traceparent,
        created_at=WRITTEN,
        attempts=0,
    )


def test_the_body_of_a_message_is_the_body_of_its_row() -> None:
    row = a_row()
    assert relay.message(row).body == row.body


def test_the_message_id_is_the_id_of_the_event() -> None:
    row = a_row()
    assert relay.message(row).message_id == str(row.event_id)


def test_a_message_is_persistent() -> None:
    assert relay.message(a_row()).delivery_mode == 2


def test_the_timestamp_of_a_message_is_the_time_of_its_row() -> None:
    assert relay.message(a_row()).timestamp == WRITTEN


@pytest.mark.parametrize(
    ("traceparent", "headers"), [(None, {}), ("00-a-b-01", {"traceparent": "00-a-b-01"})]
)
def test_the_only_header_is_the_traceparent(
    traceparent: str | None, headers: dict[str, str]
) -> None:
    assert relay.message(a_row(traceparent=traceparent)).headers == headers


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
