import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from notifier import dead_letters
from schemas import topology

AT = datetime(2026, 1, 1, tzinfo=UTC)


def row(
    *,
    body: bytes = b"{}",
    message_id: str | None = "1",
    queue: str = "uploads",
    headers: dict[str, object] | None = None,
) -> dict[str, Any]:
    message = SimpleNamespace(
        body=body, message_id=message_id, headers=headers or {}, content_type="text/plain"
    )
    return dict(dead_letters.row_of(cast("Any", message), queue=queue))


def a_death(**facts: object) -> dict[str, object]:
    return {"queue": "uploads", "reason": "rejected", "count": 2, "time": AT} | facts


def test_every_dead_letter_queue_and_the_unrouted_queue_are_consumed() -> None:
    queues = {queue.name for queue in topology.QUEUES}
    dead = {name for name in queues if name.endswith(".dlq")}
    assert set(dead_letters.SOURCES) == dead | {topology.UNROUTED.name}
    assert {dead_letters.SOURCES[name] for name in dead} <= queues


def test_the_death_is_the_one_of_the_work_queue_not_of_a_retry_tier() -> None:
    tier = a_death(queue="waybill.retry.5s", reason="expired", count=9)
    found = row(headers={"x-death": [tier, a_death()]})
    assert (found["reason"], found["deaths"], found["dead_lettered_at"]) == ("rejected", 2, AT)


@pytest.mark.parametrize(
    "deaths",
    [
        None,
        "text",
        [],
        ["text"],
        [{}],
        [a_death(queue="notify")],
        [a_death(reason=1, count="2", time="now")],
        [a_death(reason=None, count=-1, time=None)],
        [a_death(reason=None, count=2**63, time=0)],
    ],
)
def test_a_forged_death_is_ignored(deaths: object) -> None:
    found = row(headers={"x-death": deaths})
    assert (found["reason"], found["deaths"], found["dead_lettered_at"]) == ("unknown", 0, None)


@pytest.mark.parametrize(
    "other",
    [
        {"message_id": "2"},
        {"message_id": None},
        {"queue": "notify"},
        {"body": b"[]"},
        {"headers": {"x-death": [a_death(time=AT + timedelta(seconds=1))]}},
        {"headers": {"x-death": [a_death(count=3)]}},
    ],
)
def test_the_fingerprint_differs_between_messages(other: dict[str, Any]) -> None:
    first: dict[str, Any] = {"headers": {"x-death": [a_death()]}}
    assert row(**first)["fingerprint"] == row(**first)["fingerprint"]
    assert row(**first)["fingerprint"] != row(**first | other)["fingerprint"]


def test_headers_become_json_that_the_database_accepts() -> None:
    headers = row(
        headers={
            "number": 1.5,
            "infinite": float("inf"),
            "at": AT,
            "raw": b"a\xff",
            "nested": [{"a\x00": ["\x00", None]}],
        }
    )["headers"]
    assert headers == {
        "number": 1.5,
        "infinite": "inf",
        "at": "2026-01-01 00:00:00+00:00",
        "raw": "a\ufffd",
        "nested": [{"a\ufffd": ["\ufffd", None]}],
    }
    json.dumps(headers, allow_nan=False)
