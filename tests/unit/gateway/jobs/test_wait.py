"""A request that waits for a job to be settled."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NoReturn, Self
from uuid import uuid4

import psycopg
import pytest

from gateway.change_listener import JobChangeListener
from gateway.jobs.queries import Snapshot
from gateway.jobs.wait import wait_until_settled
from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.lifecycle import JobStatus
from tests.factories.jobs import a_job

pytestmark = pytest.mark.anyio

JOB_ID = JobId(uuid4())
LONG = timedelta(seconds=30)
SHORT = timedelta(milliseconds=50)


class Row:
    """A job in a database that counts the reads."""

    def __init__(self) -> None:
        self.status = JobStatus.PROCESSING
        self.reads = 0

    async def read(self) -> Snapshot:
        self.reads += 1
        return 1, a_job(JOB_ID, self.status)


class Notifications:
    """A connection that delivers the notifications of a queue; None breaks it."""

    def __init__(self) -> None:
        self.listening = asyncio.Event()
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.connections = 0

    async def connect(self) -> Any:  # noqa: ANN401  # stands for psycopg's connection
        self.connections += 1
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def execute(self, _: object) -> None:
        self.listening.set()

    async def notifies(self) -> AsyncIterator[psycopg.Notify]:
        while (payload := await self.queue.get()) is not None:
            yield psycopg.Notify("waybill_jobs", payload, 1)
        raise psycopg.OperationalError("the connection is lost")


async def unreachable() -> NoReturn:
    raise psycopg.OperationalError("the database is down")


@pytest.fixture
async def disconnection() -> asyncio.Future[None]:
    """Done once the client disconnects."""
    return asyncio.get_running_loop().create_future()


async def wait(
    row: Row,
    listener: JobChangeListener,
    disconnection: asyncio.Future[None],
    *,
    wait_max: timedelta = LONG,
) -> JobView:
    return await wait_until_settled(
        row.read, listener, job_id=JOB_ID, wait_max=wait_max, disconnection=disconnection
    )


async def test_a_notification_ends_the_wait_at_once(disconnection: asyncio.Future[None]) -> None:
    row, notifications = Row(), Notifications()
    listener = JobChangeListener(notifications.connect)
    async with listener.listening(), asyncio.timeout(0.9):
        await notifications.listening.wait()
        waiting = asyncio.create_task(wait(row, listener, disconnection))
        await asyncio.sleep(0)
        row.status = JobStatus.COMPLETED
        await notifications.queue.put(str(JOB_ID))
        assert (await waiting).status == JobStatus.COMPLETED
    assert row.reads == 2


async def test_a_notification_of_another_job_causes_no_read(
    disconnection: asyncio.Future[None],
) -> None:
    row, notifications = Row(), Notifications()
    listener = JobChangeListener(notifications.connect)
    async with listener.listening():
        await notifications.listening.wait()
        await notifications.queue.put(str(uuid4()))
        await wait(row, listener, disconnection, wait_max=SHORT)
    assert row.reads == 2, "one at the start, one at the end"


async def test_a_change_without_notification_is_found_within_a_second(
    disconnection: asyncio.Future[None],
) -> None:
    row, listener = Row(), JobChangeListener(unreachable)
    async with listener.listening(), asyncio.timeout(5):
        waiting = asyncio.create_task(wait(row, listener, disconnection))
        await asyncio.sleep(0.05)
        row.status = JobStatus.FAILED
        assert (await waiting).status == JobStatus.FAILED


async def test_a_lost_connection_is_opened_again() -> None:
    notifications = Notifications()
    listener = JobChangeListener(notifications.connect)
    async with listener.listening(), asyncio.timeout(10):
        await notifications.listening.wait()
        notifications.listening.clear()
        await notifications.queue.put(None)
        await notifications.listening.wait()
        assert notifications.connections == 2


async def test_the_wait_ends_when_its_time_is_up(disconnection: asyncio.Future[None]) -> None:
    async with asyncio.timeout(5):
        job = await wait(Row(), JobChangeListener(unreachable), disconnection, wait_max=SHORT)
    assert job.status == JobStatus.PROCESSING


async def test_the_wait_ends_when_the_client_disconnects(
    disconnection: asyncio.Future[None],
) -> None:
    async with asyncio.timeout(0.9):
        waiting = asyncio.create_task(wait(Row(), JobChangeListener(unreachable), disconnection))
        await asyncio.sleep(0)
        disconnection.set_result(None)
        assert (await waiting).status == JobStatus.PROCESSING


async def test_the_wait_ends_at_once_when_the_process_stops(
    disconnection: asyncio.Future[None],
) -> None:
    listener = JobChangeListener(unreachable)
    async with asyncio.timeout(0.9):
        waiting = asyncio.create_task(wait(Row(), listener, disconnection))
        await asyncio.sleep(0)
        listener.drain()
        assert (await waiting).status == JobStatus.PROCESSING


async def test_a_finished_wait_leaves_nothing_behind(disconnection: asyncio.Future[None]) -> None:
    listener = JobChangeListener(unreachable)
    await wait(Row(), listener, disconnection, wait_max=SHORT)
    assert not listener.waiting
