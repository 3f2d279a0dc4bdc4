"""Periodic tasks from a real beat to a real worker, and invalid messages on their queue."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from schemas import queues, topology
from schemas.events import envelope
from schemas.events.envelope import CONTENT_TYPE
from schemas.lifecycle import JobStatus, UploadStatus
from schemas.tables.uploads import Upload
from tests.eventually import eventually
from tests.factories.abandoned import add_abandoned_upload
from tests.integration.pipeline.workbench import Workbench, prepare_staging, workbench

DEAD = topology.dead_letter_queue(queues.UPLOADS)

SWEEP_UPLOADS = {"lang": "py", "task": "tasks.sweep_uploads", "id": "1"}
NO_ARGUMENTS = b"[[], {}, {}]"


@pytest.fixture(scope="module")
def swept(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    """A worker and a beat, started before the topology exists."""
    settings = {"SWEEP_EVERY": "1s"}
    with infrastructure.scoped("swept", settings=settings, template=migrated_template) as own:
        prepare_staging(own)
        own.start_services("transfer", "beat")
        yield own


@pytest.fixture
def beat_bench(swept: Stack) -> Iterator[Workbench]:
    with workbench(swept) as bench:
        yield bench


def abandoned(bench: Workbench) -> Upload:
    with Session(bench.engine) as session, session.begin():
        return add_abandoned_upload(session)


def status(bench: Workbench, upload: Upload) -> str:
    with Session(bench.engine) as session:
        return session.get_one(Upload, upload.id).status


def until_swept(bench: Workbench, upload: Upload) -> None:
    eventually(lambda: status(bench, upload), until=lambda status: status == UploadStatus.EXPIRED)


def publish(bench: Workbench, body: bytes = NO_ARGUMENTS, **properties: Any) -> None:  # noqa: ANN401  # whatever AMQP can carry
    bench.bus.publish_raw(
        body,
        **{
            "routing_key": topology.MAINTENANCE,
            "content_type": "application/json",
            "headers": SWEEP_UPLOADS,
            **properties,
        },
    )


def test_a_worker_runs_the_periodic_tasks_of_beat(beat_bench: Workbench) -> None:
    upload = abandoned(beat_bench)
    orphan = beat_bench.staging / str(uuid4())
    orphan.write_bytes(b"orphan")
    day_ago = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    os.utime(orphan, (day_ago, day_ago))
    until_swept(beat_bench, upload)
    eventually(orphan.exists, until=lambda exists: not exists)
    assert beat_bench.bus.depth(DEAD) == 0


def test_beat_sends_every_task_when_it_starts_and_stops_cleanly(
    beat_bench: Workbench,
) -> None:
    beat = beat_bench.system.processes["beat"]
    beat.stop()
    assert "Traceback" not in beat.log_file.read_text()
    upload = abandoned(beat_bench)
    beat.start()
    until_swept(beat_bench, upload)


INVALID_MESSAGES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "no headers": (NO_ARGUMENTS, {"headers": {}}),
    "an unknown task": (NO_ARGUMENTS, {"headers": SWEEP_UPLOADS | {"task": "os.system"}}),
    "a task that is no text": (NO_ARGUMENTS, {"headers": SWEEP_UPLOADS | {"task": ["x"]}}),
    "the task of an event": (
        NO_ARGUMENTS,
        {"headers": SWEEP_UPLOADS | {"task": "tasks.upload_to_object_store"}},
    ),
    "a task of Celery's own": (
        NO_ARGUMENTS,
        {"headers": SWEEP_UPLOADS | {"task": "celery.chord_unlock"}},
    ),
    "the old protocol": (b'{"task": "tasks.sweep_uploads", "id": "1"}', {"headers": {}}),
    "no content type": (NO_ARGUMENTS, {"content_type": None, "content_encoding": None}),
    "a pickle": (b"\x80\x04N.", {"content_type": "application/x-python-serialize"}),
    "claimed to be compressed": (
        NO_ARGUMENTS,
        {"headers": SWEEP_UPLOADS | {"compression": "zlib"}},
    ),
}


@pytest.mark.parametrize("name", INVALID_MESSAGES)
def test_an_invalid_message_is_dropped_and_the_worker_continues(
    name: str, bench: Workbench
) -> None:
    body, properties = INVALID_MESSAGES[name]
    before = bench.system.processes["transfer"].pid
    publish(bench, body, **properties)
    upload = abandoned(bench)
    publish(bench)
    until_swept(bench, upload)
    assert bench.bus.depth(topology.MAINTENANCE) == 0
    assert bench.bus.depth(DEAD) == 0
    assert bench.system.processes["transfer"].pid == before


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (b'[["/etc/passwd"], {"evil": true}, {"callbacks": [{"task": "evil"}]}]', {}),
        (b"not json", {"content_encoding": "rot13"}),
        (b'{"args": [1], "kwargs": {}}', {}),
        (NO_ARGUMENTS, {"headers": {"timelimit": "zz", "retries": "x", "shadow": 1}}),
        (NO_ARGUMENTS, {"headers": {"eta": "garbage", "expires": 3, "group": 7}}),
        (NO_ARGUMENTS, {"headers": {"id": {"no": "text"}, "stamps": 7, "ignore_result": "maybe"}}),
    ],
)
def test_only_the_name_of_a_periodic_task_is_read(
    body: bytes, changes: dict[str, Any], bench: Workbench
) -> None:
    upload = abandoned(bench)
    headers = SWEEP_UPLOADS | changes.get("headers", {})
    publish(bench, body, **{**changes, "headers": headers})
    until_swept(bench, upload)


def test_an_event_is_not_run_as_a_periodic_task(bench: Workbench) -> None:
    event = bench.finalized()
    for headers in ({}, SWEEP_UPLOADS):
        publish(bench, envelope.encode(event), content_type=CONTENT_TYPE, headers=headers)
    upload = abandoned(bench)
    publish(bench)
    until_swept(bench, upload)
    assert bench.job(event).status == JobStatus.QUEUED
    assert bench.bus.depth(topology.MAINTENANCE) == 0


def test_a_periodic_task_is_dead_lettered_on_another_queue(
    bench: Workbench,
) -> None:
    # The broker copies the message into the other queue, with the same routing key.
    upload = abandoned(bench)
    publish(bench, headers=SWEEP_UPLOADS | {"CC": [queues.UPLOADS]})
    until_swept(bench, upload)
    dead = bench.bus.take(DEAD)
    headers: dict[str, Any] = dead.headers
    assert headers["task"] == "tasks.sweep_uploads"
