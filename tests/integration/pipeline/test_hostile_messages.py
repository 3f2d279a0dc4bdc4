"""Malformed messages on a work queue are dead-lettered, and the worker keeps working.

Run these tests for every new Celery: `pipeline/messaging/consumer.py` uses semi-public hooks.
"""

from typing import Any
from uuid import uuid4

import msgspec
import pytest
from kombu.message import Message

from schemas import queues, topology
from schemas.events import envelope
from schemas.events.envelope import CONTENT_TYPE
from schemas.lifecycle import JobStatus
from tests.integration.pipeline.workbench import Workbench

DEAD = topology.dead_letter_queue(queues.UPLOADS)


def event_with(**changes: object) -> bytes:
    wire = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/elsewhere",
        "type": "upload.finalized",
        "subject": str(uuid4()),
        "time": "2026-11-20T12:00:00Z",
        "datacontenttype": "application/json",
        "tenantid": str(uuid4()),
        "data": {
            "upload_id": str(uuid4()),
            "job_id": str(uuid4()),
            "filename": "file.bin",
            "size": 1,
        },
    }
    return msgspec.json.encode(wire | changes)


CELERY_HEADERS = {"lang": "py", "task": "tasks.upload_to_object_store", "id": "x"}

MALFORMED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "not JSON": (b"not json", {"headers": CELERY_HEADERS}),
    "bad UTF-8": (b"\xff\xfe\xff", {"headers": CELERY_HEADERS}),
    "no body": (b"", {}),
    "a list": (b"[1]", {}),
    "no content type": (event_with(), {"content_type": None, "content_encoding": None}),
    "a task of Celery's own": (
        b"[[], {}, {}]",
        {"content_type": "application/json", "headers": CELERY_HEADERS},
    ),
    "a periodic task": (
        b"[[], {}, {}]",
        {
            "content_type": "application/json",
            "headers": CELERY_HEADERS | {"task": "tasks.sweep_uploads"},
        },
    ),
    "a pickle": (
        b"\x80\x04N.",
        {"content_type": "application/x-python-serialize", "headers": CELERY_HEADERS},
    ),
    "an odd encoding": (event_with(), {"content_encoding": "rot13"}),
    "claimed to be compressed": (event_with(), {"headers": {"compression": "zlib"}}),
    "an unknown event": (event_with(type="upload.exploded"), {}),
    "an event of another queue": (
        event_with(
            type="upload.failed",
            data={"upload_id": str(uuid4()), "filename": "f", "code": "c", "detail": "d"},
        ),
        {},
    ),
    "an event without its data": (event_with(data={}), {}),
    "too large": (event_with(source="/" + "x" * 70_000), {}),
    "nested too deep": (b"[" * 60_000, {}),
}


def body_of(message: Message) -> bytes:
    body: Any = message.body  # typed as text, but undecodable bytes stay bytes
    return body.encode() if isinstance(body, str) else bytes(body)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_message_is_dead_lettered_and_the_worker_keeps_working(
    name: str, bench: Workbench
) -> None:
    body, properties = MALFORMED[name]
    before = bench.system.processes["transfer"].pid
    message: dict[str, Any] = {"content_type": CONTENT_TYPE, **properties}
    bench.bus.publish_raw(body, routing_key=queues.UPLOADS, **message)
    good = bench.finalized()
    bench.bus.publish(good)
    dead = bench.bus.take(DEAD)
    assert body_of(dead) == body
    assert bench.settled(good).status == JobStatus.COMPLETED
    assert bench.system.processes["transfer"].pid == before


@pytest.mark.parametrize(
    "headers",
    [
        {"timelimit": "zz", "retries": "x", "shadow": 1},
        {"eta": "garbage", "expires": 3},
        {"task": "os.system", "id": "x", "lang": "py"},
        {"callbacks": [{"task": "evil"}], "stamps": 7, "ignore_result": "maybe"},
        {topology.ATTEMPT_HEADER: "many", "x-delivery-count": -5, "traceparent": 9},
    ],
)
def test_headers_of_the_publisher_have_no_effect(
    headers: dict[str, object], bench: Workbench
) -> None:
    good = bench.finalized()
    bench.bus.publish_raw(
        envelope.encode(good),
        routing_key=queues.UPLOADS,
        content_type=CONTENT_TYPE,
        headers=headers,
    )
    assert bench.settled(good).status == JobStatus.COMPLETED
    assert bench.bus.depth(DEAD) == 0


def test_an_event_of_an_unknown_upload_is_acknowledged(bench: Workbench) -> None:
    bench.bus.publish_raw(event_with(), routing_key=queues.UPLOADS, content_type=CONTENT_TYPE)
    good = bench.finalized()
    bench.bus.publish(good)
    assert bench.settled(good).status == JobStatus.COMPLETED
    assert bench.bus.depth(DEAD) == 0
