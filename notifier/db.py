"""The way to PostgreSQL: transactions, wake-ups, and patience while it is away."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from typing import Any, Final, Never, TypeAlias, TypeVar

import psycopg
import structlog
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    create_async_engine,
)
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from schemas.settings import DatabaseSettings

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

Transaction: TypeAlias = "Callable[[], AbstractAsyncContextManager[AsyncConnection]]"
"""Begins a transaction, commits when the block ends, rolls back when it raises.

A connection, not a session: rows here are written by statement and never kept,
and a session's bookkeeping would double the cost of an event.
"""

# Tables or columns not migrated yet, rights not granted yet; any other complaint about
# a statement is a bug of ours, and waiting would only hide it.
NOT_READY: Final = frozenset({"42P01", "42703", "42501", "3F000"})

LISTEN_PAUSE: Final = timedelta(milliseconds=500)

_CONNECTION: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    # A peer that vanished without a word is noticed in a minute, not in two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    # After a failover the old primary may still answer, read-only.
    "target_session_attrs": "read-write",
}


def build_engine(settings: DatabaseSettings, *, name: str) -> AsyncEngine:
    return create_async_engine(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        max_overflow=0,
        # A connection the server closed meanwhile would fail the first query after a restart.
        pool_pre_ping=True,
        # A failed insert's message would carry an event's body into the log.
        hide_parameters=True,
        connect_args={**_CONNECTION, "application_name": name},
    )


def is_outage(error: BaseException) -> bool:
    """Whether the database itself is the trouble, not what was asked of it.

    Counted in: no connection, a restart, a full disk, a read-only standby,
    tables not migrated yet. The same request may succeed later, unchanged.
    """
    if isinstance(error, ProgrammingError):
        return getattr(error.orig, "sqlstate", None) in NOT_READY
    return isinstance(
        error,
        (OperationalError, InterfaceError, InternalError, PoolTimeout, psycopg.OperationalError),
    )


async def through_outages(work: Callable[[], Awaitable[T]], *, doing: str) -> T:
    """Await `work()`, on an outage of the database once more, for as long as it lasts.

    Args:
        work: begun anew each time.
        doing: what waits, for the log.
    """

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "database.unavailable",
            doing=doing,
            tries=state.attempt_number,
            error=describe(error),
        )

    async for attempt in AsyncRetrying(
        retry=retry_if_exception(is_outage),
        wait=wait_exponential_jitter(multiplier=0.1, max=5, jitter=0.5),
        before_sleep=report,
    ):
        with attempt:
            return await work()
    raise RuntimeError("a policy without an end ended")


def describe(error: BaseException | None) -> str:
    """Return the driver's own first line; SQLAlchemy's text would repeat statement and parameters."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"


async def wait_until_it_answers(engine: AsyncEngine) -> None:
    """Return once the database takes connections; until then log, with growing pauses."""

    async def ask() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    await through_outages(ask, doing="starting")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when cancelled meanwhile; the cancellation is raised then.

    For steps that would have to be repeated if they were cut short. Once
    cancelled, an error of `work` is logged and no more: raised in place of the
    cancellation it would be taken for a reason to try again, and the order to
    stop would be lost.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("database.step_failed_while_stopping", error=describe(error))
        raise


class WakeUp:
    """A hint that there is something to do. Missing one costs a poll interval, nothing else."""

    def __init__(self) -> None:
        self._called = asyncio.Event()

    def call(self) -> None:
        self._called.set()

    async def wait(self, *, at_most: timedelta) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most.total_seconds()):
                await self._called.wait()
        self._called.clear()


async def listen(settings: DatabaseSettings, *, channel: str, wake: WakeUp, name: str) -> Never:
    """Pass every NOTIFY on `channel` on to `wake`; connects again when the connection is lost.

    It has a connection of its own, since LISTEN belongs to a session. Behind a
    pooler that shares sessions nothing arrives, and the poll has to do.
    """
    url = make_url(settings.database_url.get_secret_value()).set(drivername="postgresql")
    conninfo = url.render_as_string(hide_password=False)
    statement = sql.SQL("LISTEN {}").format(sql.Identifier(channel))

    async def attend() -> psycopg.AsyncConnection:
        connection = await psycopg.AsyncConnection.connect(
            conninfo, autocommit=True, application_name=name, **_CONNECTION
        )
        try:
            await connection.execute(statement)
        except BaseException:
            # Whoever is stopped here would leave it open.
            await connection.close()
            raise
        return connection

    while True:
        connection = await through_outages(attend, doing=f"listening on {channel}")
        try:
            async with connection:
                # What was committed while nobody listened was not announced to us.
                wake.call()
                async for _ in connection.notifies():
                    wake.call()
        except psycopg.OperationalError as error:
            log.warning("database.listening_lost", channel=channel, error=describe(error))
        # A server that takes every connection and drops it must not be asked in a tight loop.
        await asyncio.sleep(LISTEN_PAUSE.total_seconds())
