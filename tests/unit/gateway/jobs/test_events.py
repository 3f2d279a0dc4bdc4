"""A job as a stream of Server-Sent Events."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import NoReturn
from uuid import uuid4

import msgspec
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from gateway.change_listener import STREAM_READS_MAX, JobChangeListener
from gateway.http import sse
from gateway.jobs.queries import Snapshot
from gateway.jobs.wait import event_of, events
from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.lifecycle import JobStatus
from tests.factories.jobs import a_job

pytestmark = pytest.mark.anyio

JOB_ID = JobId(uuid4())


async def no_connection() -> NoReturn:
    raise psycopg.OperationalError


class Row:
    """A job in a database that counts the reads, and can fail."""

    def __init__(self, *, revision: int = 1, status: JobStatus = JobStatus.PROCESSING) -> None:
        self.revision = revision
        self.status = status
        self.error: Exception | None = None
        self.reads = 0
        self.listener = JobChangeListener(no_connection)

    async def read(self) -> Snapshot:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.revision, a_job(JOB_ID, self.status)

    def change(self, status: JobStatus = JobStatus.PROCESSING) -> None:
        self.revision += 1
        self.status = status

    def stream(
        self,
        *,
        seen: int = 0,
        poll_interval: timedelta = timedelta(milliseconds=50),
        heartbeat: timedelta = sse.HEARTBEAT,
    ) -> AsyncIterator[bytes]:
        changes = events(
            self.read, self.listener, job_id=JOB_ID, seen=seen, poll_interval=poll_interval
        )
        return sse.stream(changes, heartbeat=heartbeat)


def parsed(event: bytes) -> tuple[int, str]:
    lines = dict(line.split(b": ", 1) for line in event.strip().split(b"\n"))
    return int(lines[b"id"]), lines[b"event"].decode()


async def all_of(stream: AsyncIterator[bytes]) -> list[bytes]:
    async with asyncio.timeout(10):
        return [event async for event in stream]


def test_an_event_has_a_name_an_id_and_one_line_of_data() -> None:
    job = a_job(JOB_ID, JobStatus.PROCESSING, detail="two\r\nlines\u2028and more")

    event = event_of(job, revision=7)

    identifier, name, data, *rest = event.split(b"\n")
    assert (identifier, name, rest) == (b"id: 7", b"event: progress", [b"", b""])
    assert msgspec.json.decode(data.removeprefix(b"data: "), type=JobView) == job


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
async def test_the_last_event_has_the_name_of_the_status(status: JobStatus) -> None:
    retry, last = await all_of(Row(revision=5, status=status).stream())

    assert retry == sse.RETRY
    assert parsed(last) == (5, status)


async def test_an_event_that_the_client_has_is_not_sent_again() -> None:
    row = Row(revision=5)
    stream = row.stream(seen=5)
    assert await anext(stream) == sse.RETRY
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    assert not waiting.done()

    row.change()

    async with asyncio.timeout(5):
        assert parsed(await waiting) == (6, "progress")


async def test_a_slow_client_gets_the_newest_state_and_no_backlog() -> None:
    row = Row()
    stream = row.stream()
    await anext(stream)
    assert parsed(await anext(stream)) == (1, "progress")
    for _ in range(100):
        row.change()
    row.change(JobStatus.COMPLETED)

    (last,) = await all_of(stream)

    assert parsed(last) == (102, "completed")


async def test_a_heartbeat_does_not_read_the_job() -> None:
    row = Row()
    stream = row.stream(poll_interval=timedelta(minutes=1), heartbeat=timedelta(milliseconds=10))
    for _ in range(20):
        await anext(stream)

    assert row.reads == 1


async def test_comments_are_sent_while_nothing_changes() -> None:
    stream = Row().stream(seen=1, heartbeat=timedelta(milliseconds=20))

    async with asyncio.timeout(5):
        received = [await anext(stream) for _ in range(3)]

    assert received == [sse.RETRY, sse.COMMENT, sse.COMMENT]


async def test_a_stream_ends_without_a_read_when_the_process_stops() -> None:
    row = Row()
    stream = row.stream(poll_interval=timedelta(minutes=1))
    await anext(stream)
    await anext(stream)
    ending = asyncio.ensure_future(all_of(stream))
    await asyncio.sleep(0.02)

    row.listener.drain()

    assert await ending == []
    assert row.reads == 1


async def test_a_stream_ends_when_the_database_is_lost() -> None:
    row = Row()
    stream = row.stream()
    await anext(stream)
    await anext(stream)
    row.error = OperationalError("", None, Exception())

    assert await all_of(stream) == []


async def test_many_streams_share_a_few_connections() -> None:
    row = Row()
    reading, reading_max = 0, 0

    async def read() -> Snapshot:
        nonlocal reading, reading_max
        reading += 1
        reading_max = max(reading_max, reading)
        await asyncio.sleep(0.01)
        reading -= 1
        return 2, a_job(JOB_ID, JobStatus.COMPLETED)

    streams = [sse.stream(events(read, row.listener, job_id=JOB_ID, seen=0)) for _ in range(20)]

    assert [len(sent) for sent in await asyncio.gather(*map(all_of, streams))] == [2] * 20
    assert reading_max == STREAM_READS_MAX


async def test_a_cancelled_stream_leaves_nothing_behind() -> None:
    row = Row()
    waiting = asyncio.ensure_future(all_of(row.stream()))
    await asyncio.sleep(0.05)
    assert row.listener.waiting

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert not row.listener.waiting
