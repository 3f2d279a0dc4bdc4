import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NoReturn
from uuid import uuid4

import msgspec
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from gateway.change_listener import LOOKS_AT_ONCE, JobChangeListener
from gateway.jobs import stream
from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.lifecycle import JobStatus
from tests.factories.jobs import a_job

pytestmark = pytest.mark.anyio

JOB_ID = JobId(uuid4())


async def no_connection() -> NoReturn:
    raise psycopg.OperationalError


class Row:
    """A job in a database that can be changed, and looked at."""

    def __init__(self, *, revision: int = 1, status: JobStatus = JobStatus.PROCESSING) -> None:
        self.revision = revision
        self.status = status
        self.error: Exception | None = None
        self.looks = 0
        self.watch = JobChangeListener(no_connection)

    async def look(self) -> stream.Snapshot:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.revision, a_job(JOB_ID, self.status)

    def change(self, status: JobStatus = JobStatus.PROCESSING) -> None:
        self.revision += 1
        self.status = status

    def events(self, *, seen: int = 0, **options: Any) -> AsyncIterator[bytes]:  # noqa: ANN401  # whatever it takes
        options = {"look_again": timedelta(milliseconds=50)} | options
        return stream.events(self.look, self.watch, job_id=JOB_ID, seen=seen, **options)


def read(event: bytes) -> tuple[int, str]:
    lines = dict(line.split(b": ", 1) for line in event.strip().split(b"\n"))
    return int(lines[b"id"]), lines[b"event"].decode()


async def all_of(events: AsyncIterator[bytes]) -> list[bytes]:
    async with asyncio.timeout(10):
        return [event async for event in events]


def test_an_event_is_named_numbered_and_on_one_line() -> None:
    job = a_job(JOB_ID, JobStatus.PROCESSING, detail="two\r\nlines\u2028and more")

    event = stream.event_of(job, revision=7)

    identifier, name, data, *rest = event.split(b"\n")
    assert (identifier, name, rest) == (b"id: 7", b"event: progress", [b"", b""])
    assert msgspec.json.decode(data.removeprefix(b"data: "), type=JobView) == job


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
async def test_the_last_event_is_named_for_the_end_and_ends_the_stream(status: JobStatus) -> None:
    retry, last = await all_of(Row(revision=5, status=status).events())

    assert retry == stream.RETRY
    assert read(last) == (5, status)


async def test_nothing_is_sent_that_was_seen_before() -> None:
    row = Row(revision=5)
    events = row.events(seen=5)
    assert await anext(events) == stream.RETRY
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.05)
    assert not waiting.done()

    row.change()

    async with asyncio.timeout(5):
        assert read(await waiting) == (6, "progress")


async def test_a_slow_reader_gets_the_newest_state_and_no_backlog() -> None:
    row = Row()
    events = row.events()
    await anext(events)
    assert read(await anext(events)) == (1, "progress")
    for _ in range(100):
        row.change()
    row.change(JobStatus.COMPLETED)

    (last,) = await all_of(events)

    assert read(last) == (102, "completed")


async def test_a_reader_costs_no_look_while_nothing_happens() -> None:
    row = Row()
    events = row.events(look_again=timedelta(minutes=1), heartbeat=timedelta(milliseconds=10))
    for _ in range(20):
        await anext(events)

    assert row.looks == 1


async def test_silence_is_broken_by_comments() -> None:
    events = Row().events(seen=1, heartbeat=timedelta(milliseconds=20))

    async with asyncio.timeout(5):
        assert [await anext(events) for _ in range(3)] == [
            stream.RETRY,
            stream.COMMENT,
            stream.COMMENT,
        ]


async def test_a_stream_ends_when_the_process_is_about_to_stop() -> None:
    row = Row()
    events = row.events()
    await anext(events)
    await anext(events)
    row.watch.drain()

    assert await all_of(events) == []


async def test_a_stream_ends_when_the_database_is_lost() -> None:
    row = Row()
    events = row.events()
    await anext(events)
    await anext(events)
    row.error = OperationalError("", None, Exception())

    assert await all_of(events) == []


async def test_many_readers_leave_connections_to_others() -> None:
    row = Row()
    looking, most = 0, 0

    async def look() -> stream.Snapshot:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        await asyncio.sleep(0.01)
        looking -= 1
        return 2, a_job(JOB_ID, JobStatus.COMPLETED)

    readers = [stream.events(look, row.watch, job_id=JOB_ID, seen=0) for _ in range(20)]

    assert [len(sent) for sent in await asyncio.gather(*map(all_of, readers))] == [2] * 20
    assert most == LOOKS_AT_ONCE


async def test_a_stream_that_is_left_watches_nothing_any_more() -> None:
    row = Row()
    waiting = asyncio.ensure_future(all_of(row.events()))
    await asyncio.sleep(0.05)
    assert row.watch.is_awaited(JOB_ID)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert not row.watch.is_awaited(JOB_ID)
