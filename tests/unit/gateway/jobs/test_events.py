"""A job as a stream of Server-Sent Events."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy.exc import OperationalError

from gateway.http import sse
from gateway.job_watch import Snapshot
from gateway.jobs.wait import event_of, send_changes
from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.lifecycle import JobStatus
from tests.factories.jobs import a_job
from tests.unit.gateway.jobs.conftest import Jobs

pytestmark = pytest.mark.anyio

JOB_ID = JobId(uuid4())


class Client:
    """Follows a job; it takes what is sent at once, unless it is told to pause."""

    def __init__(
        self, jobs: Jobs, job: Snapshot, *, seen: int = 0, heartbeat: timedelta = sse.HEARTBEAT
    ) -> None:
        self._received: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.may_continue = asyncio.Event()
        self.may_continue.set()
        self._following = asyncio.create_task(
            self._follow(jobs, job, seen=seen, heartbeat=heartbeat)
        )

    async def _follow(self, jobs: Jobs, job: Snapshot, *, seen: int, heartbeat: timedelta) -> None:
        with jobs.watch.waiting(job) as changes:
            await send_changes(changes, self._write, job=job, seen=seen, heartbeat=heartbeat)
        await self._received.put(None)

    async def _write(self, data: bytes) -> None:
        await self._received.put(data)
        await self.may_continue.wait()

    async def next(self) -> bytes | None:
        """Return what is sent next; None at the end of the stream."""
        async with asyncio.timeout(5):
            return await self._received.get()

    async def event(self) -> tuple[int, str]:
        """Return the id and the name of the next event."""
        event = await self.next()
        assert event is not None, "the stream has ended"
        lines = dict(line.split(b": ", 1) for line in event.strip().split(b"\n"))
        return int(lines[b"id"]), lines[b"event"].decode()

    def has_received(self) -> bool:
        return not self._received.empty()

    async def cancel(self) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)


def test_an_event_has_a_name_an_id_and_one_line_of_data() -> None:
    job = a_job(JOB_ID, JobStatus.PROCESSING, detail="two\r\nlines\u2028and more")

    event = event_of(Snapshot(revision=7, job=job))

    identifier, name, data, *rest = event.split(b"\n")
    assert (identifier, name, rest) == (b"id: 7", b"event: progress", [b"", b""])
    assert msgspec.json.decode(data.removeprefix(b"data: "), type=JobView) == job


@pytest.mark.parametrize(
    ("field", "expected"),
    [("", 0), ("4", 4), ("5", 5), ("6", 0), ("-1", 0), ("x", 0), ("\u0665", 0), ("9" * 5_000, 0)],
)
def test_an_id_that_no_event_can_have_had_counts_as_none(field: str, expected: int) -> None:
    assert sse.last_event_id(field, newest=5) == expected


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
async def test_the_last_event_has_the_name_of_the_status(jobs: Jobs, status: JobStatus) -> None:
    client = Client(jobs, jobs.add(revision=5, status=status))

    assert await client.event() == (5, status)
    assert await client.next() is None


async def test_an_event_that_the_client_has_is_not_sent_again(jobs: Jobs) -> None:
    job = jobs.add(revision=5)
    client = Client(jobs, job, seen=5)
    await jobs.compared()
    assert not client.has_received()

    jobs.change(job)

    assert await client.event() == (6, "progress")


async def test_a_slow_client_gets_the_newest_state_and_no_backlog(jobs: Jobs) -> None:
    job = jobs.add()
    client = Client(jobs, job)
    client.may_continue.clear()
    assert await client.event() == (1, "progress")
    with jobs.watch.waiting(job) as other:
        for _ in range(10):
            changed = jobs.change(job)
            assert await other.newer(within=timedelta(seconds=5)) == changed
        changed = jobs.change(job, JobStatus.COMPLETED)
        assert await other.newer(within=timedelta(seconds=5)) == changed

    client.may_continue.set()

    assert await client.event() == (12, "completed")
    assert await client.next() is None


async def test_comments_are_sent_while_nothing_changes_and_cost_no_query(jobs: Jobs) -> None:
    client = Client(jobs, jobs.add(), seen=1, heartbeat=timedelta(milliseconds=20))

    assert [await client.next() for _ in range(10)] == [sse.COMMENT] * 10

    assert (len(jobs.reads), len(jobs.comparisons)) == (0, 1)


async def test_a_stream_ends_without_a_query_when_the_process_stops(jobs: Jobs) -> None:
    client = Client(jobs, jobs.add())
    await client.event()
    await jobs.compared()

    jobs.watch.drain()

    assert await client.next() is None
    assert (len(jobs.reads), len(jobs.comparisons)) == (0, 1)


async def test_a_stream_survives_an_outage_of_the_database(jobs: Jobs) -> None:
    job = jobs.add()
    client = Client(jobs, job)
    await client.event()
    jobs.error = OperationalError("", None, Exception())
    jobs.change(job, JobStatus.COMPLETED)
    await jobs.until(lambda: jobs.failures)
    assert not client.has_received()

    jobs.error = None

    assert await client.event() == (2, "completed")


async def test_the_stream_of_a_deleted_job_ends(jobs: Jobs) -> None:
    job = jobs.add()
    client = Client(jobs, job)
    await client.event()
    await jobs.compared()

    del jobs.rows[job.job.job_id]
    jobs.watch.notify(None)

    assert await client.next() is None


async def test_many_streams_of_a_job_share_one_read(jobs: Jobs) -> None:
    job = jobs.add()
    clients = [Client(jobs, job) for _ in range(20)]
    for client in clients:
        await client.event()

    jobs.change(job, JobStatus.COMPLETED)

    assert [await client.event() for client in clients] == [(2, "completed")] * 20
    assert len(jobs.reads) == 1


async def test_a_cancelled_stream_leaves_nothing_behind(jobs: Jobs) -> None:
    client = Client(jobs, jobs.add())
    await client.event()
    assert len(jobs.watch) == 1

    await client.cancel()

    assert len(jobs.watch) == 0
