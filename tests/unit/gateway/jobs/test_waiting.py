import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NoReturn
from uuid import uuid4

import psycopg
import pytest

from gateway.change_listener import JobChangeListener
from gateway.jobs.operations import wait_until_settled
from gateway.jobs.routes import preferred_wait
from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.lifecycle import JobStatus
from tests.factories.jobs import a_job

pytestmark = pytest.mark.anyio

JOB_ID = JobId(uuid4())
LONG = timedelta(seconds=30)
SHORT = timedelta(milliseconds=50)


class Row:
    """A job in a database that can be changed, and looked at."""

    def __init__(self) -> None:
        self.status = JobStatus.PROCESSING
        self.looks = 0

    async def look(self) -> JobView:
        self.looks += 1
        return a_job(JOB_ID, self.status)


class Notifications:
    """A connection that says what it is told to say."""

    def __init__(self) -> None:
        self.listening = asyncio.Event()
        self.said: asyncio.Queue[str | None] = asyncio.Queue()
        self.connections = 0

    @asynccontextmanager
    async def opened(self) -> "AsyncIterator[Notifications]":
        self.connections += 1
        yield self

    async def connect(self) -> Any:  # noqa: ANN401  # stands for psycopg's connection
        return self.opened()

    async def execute(self, _: object) -> None:
        self.listening.set()

    async def notifies(self) -> AsyncIterator[psycopg.Notify]:
        while (payload := await self.said.get()) is not None:
            yield psycopg.Notify("waybill_jobs", payload, 1)
        raise psycopg.OperationalError("the connection is lost")


async def unreachable() -> NoReturn:
    raise psycopg.OperationalError("the database is away")


@pytest.fixture
async def here() -> asyncio.Future[None]:
    """A client that stays."""
    return asyncio.get_running_loop().create_future()


async def wait(
    row: Row, watch: JobChangeListener, here: asyncio.Future[None], *, longest: timedelta = LONG
) -> JobView:
    return await wait_until_settled(row.look, watch, job_id=JOB_ID, longest=longest, gone=here)


async def test_a_notification_ends_the_wait_at_once(here: asyncio.Future[None]) -> None:
    row, notifications = Row(), Notifications()
    watch = JobChangeListener(notifications.connect)
    async with watch.listening(), asyncio.timeout(0.9):
        await notifications.listening.wait()
        waiting = asyncio.create_task(wait(row, watch, here))
        await asyncio.sleep(0)
        row.status = JobStatus.COMPLETED
        await notifications.said.put(str(JOB_ID))
        assert (await waiting).status == JobStatus.COMPLETED
    assert row.looks == 2


async def test_a_notification_of_another_job_wakes_nobody(here: asyncio.Future[None]) -> None:
    row, notifications = Row(), Notifications()
    watch = JobChangeListener(notifications.connect)
    async with watch.listening():
        await notifications.listening.wait()
        await notifications.said.put(str(uuid4()))
        await wait(row, watch, here, longest=SHORT)
    assert row.looks == 2, "once at the start, once at the end"


async def test_without_notifications_a_change_is_seen_within_a_second(
    here: asyncio.Future[None],
) -> None:
    row, watch = Row(), JobChangeListener(unreachable)
    async with watch.listening(), asyncio.timeout(5):
        waiting = asyncio.create_task(wait(row, watch, here))
        await asyncio.sleep(0.05)
        row.status = JobStatus.FAILED
        assert (await waiting).status == JobStatus.FAILED


async def test_a_lost_connection_is_opened_again() -> None:
    notifications = Notifications()
    watch = JobChangeListener(notifications.connect)
    async with watch.listening(), asyncio.timeout(10):
        await notifications.listening.wait()
        notifications.listening.clear()
        await notifications.said.put(None)
        await notifications.listening.wait()
        assert notifications.connections == 2


async def test_the_wait_ends_with_the_time(here: asyncio.Future[None]) -> None:
    async with asyncio.timeout(5):
        job = await wait(Row(), JobChangeListener(unreachable), here, longest=SHORT)
    assert job.status == JobStatus.PROCESSING


async def test_the_wait_ends_when_the_client_goes(here: asyncio.Future[None]) -> None:
    async with asyncio.timeout(0.9):
        waiting = asyncio.create_task(wait(Row(), JobChangeListener(unreachable), here))
        await asyncio.sleep(0)
        here.set_result(None)
        assert (await waiting).status == JobStatus.PROCESSING


async def test_a_stopping_process_lets_everybody_go(here: asyncio.Future[None]) -> None:
    watch = JobChangeListener(unreachable)
    async with asyncio.timeout(5):
        waiting = asyncio.create_task(wait(Row(), watch, here))
        await asyncio.sleep(0)
        watch.drain()
        assert (await waiting).status == JobStatus.PROCESSING


async def test_nobody_is_remembered_after_the_wait(here: asyncio.Future[None]) -> None:
    watch = JobChangeListener(unreachable)
    await wait(Row(), watch, here, longest=SHORT)
    assert not watch.is_awaited(JOB_ID)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, None),
        ("", None),
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ("wait=10;foo=bar, respond-async", 10),
        ('wait="10"', 10),
        ("WAIT = 10", 10),
        ("wait=0", 0),
        ("wait=99999", 60),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=ten", None),
        ("nowait=10", None),
        ("wait", None),
        ("wait=" + "9" * 1000, None),
    ],
)
def test_a_preference_is_honoured_or_ignored(prefer: str | None, seconds: int | None) -> None:
    wanted = preferred_wait(prefer, longest=timedelta(seconds=60))

    assert wanted == (None if seconds is None else timedelta(seconds=seconds))
