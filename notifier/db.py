"""Transactions and notifications of PostgreSQL, and steps that a stop does not interrupt."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Never, TypeAlias, TypeVar

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.runtime import outages, postgres
from schemas.runtime.database_clock import LOOK_INTERVAL, DatabaseClock
from schemas.settings import DatabaseSettings

log = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")

BeginConnection: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncConnection]]
"""Begins a transaction, commits when the block ends, rolls back when it raises.

A connection, not a session: rows are written by statements and not kept, and a session's
bookkeeping would double the cost of an event.
"""


@asynccontextmanager
async def open_engine(settings: DatabaseSettings, *, name: str) -> AsyncIterator[AsyncEngine]:
    """Wait until the database answers and yield an engine; close its connections at the end."""
    engine = postgres.build_async_engine(settings, connection=_connection(name))

    async def ask() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    try:
        await postgres.through_outages(ask, doing="starting")
        yield engine
    finally:
        await engine.dispose()


async def watch_clock(engine: AsyncEngine, clock: DatabaseClock) -> Never:
    """Read the database's time again and again, and log a wrong clock of this process."""
    while True:
        await postgres.through_outages(partial(read_time, engine, clock), doing="reading the time")
        await asyncio.sleep(LOOK_INTERVAL.total_seconds())


async def read_time(engine: AsyncEngine, clock: DatabaseClock) -> None:
    asked = clock.wall()
    async with engine.connect() as connection:
        clock.set((await connection.execute(select(func.now()))).scalar_one(), asked=asked)


async def uninterrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work` to its end, even if this task is cancelled; then raise the cancellation.

    For steps that would have to be repeated after an interruption. After a cancellation an error of
    `work` is only logged: if the error were raised instead, it would count as an outage, the step
    would be repeated, and the process would not stop.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("database.step_failed_while_stopping", error=outages.describe(error))
        raise


class WakeUp:
    """A hint that there is work. A missed hint costs one poll interval."""

    def __init__(self) -> None:
        self._called = asyncio.Event()

    def call(self) -> None:
        self._called.set()

    async def wait(self, *, at_most: timedelta) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most.total_seconds()):
                await self._called.wait()
        self._called.clear()


async def listen(
    settings: DatabaseSettings, *, channel: str, wake: Callable[[], None], name: str
) -> Never:
    """Call `wake` at every notification on `channel`, and after each connect."""
    await postgres.listen(connector(settings, name=name), {channel: lambda _: wake()})


def connector(settings: DatabaseSettings, *, name: str) -> postgres.Connect:
    """Return a function that opens a connection outside any pool, which commits each statement."""
    return partial(postgres.connect, settings, connection=_connection(name))


def _connection(name: str) -> postgres.ConnectionArguments:
    return postgres.connection_arguments(name=name, silence_max=timedelta(minutes=1))
