"""Connections to PostgreSQL: engines, outages, and LISTEN."""

import asyncio
import select
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Never, TypeAlias, TypeVar, cast

import psycopg
import structlog
from psycopg import sql
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from schemas.runtime import outages
from schemas.settings import DatabaseSettings

log = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")

ConnectionArguments: TypeAlias = Mapping[str, Any]

Connect: TypeAlias = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]
"""Opens a connection, or raises `psycopg.OperationalError`."""

Notify: TypeAlias = Callable[[str | None], None]
"""Gets the payload of a notification, or None if notifications may have been lost."""

NOT_READY: Final = frozenset({"42P01", "42703", "42501", "3F000"})
"""Tables or columns are not migrated yet, or rights not granted yet. Every other error of a
statement is a bug, which waiting would hide."""

READ_ONLY: Final = "25006"
LIMIT_EXCEEDED: Final = "54"
"""SQLSTATE class of statements too large for the server: repeating them changes nothing."""

RECONNECT_PAUSE: Final = timedelta(milliseconds=500)


def connection_arguments(*, name: str, silence_max: timedelta) -> dict[str, Any]:
    """Return the arguments of every connection of a process.

    Args:
        name: the process, as `pg_stat_activity` shows it.
        silence_max: a server that is silent for longer counts as lost. Without it the
            kernel waits a quarter of an hour for an answer, and two hours on an idle connection.
    """
    seconds = int(silence_max.total_seconds())
    return {
        "application_name": name,
        "connect_timeout": 5,
        "keepalives_idle": seconds // 2,
        "keepalives_interval": seconds // 4,
        "keepalives_count": 2,
        "tcp_user_timeout": 1000 * seconds,
        # After a failover the old primary may still answer, read-only.
        "target_session_attrs": "read-write",
    }


def build_engine(settings: DatabaseSettings, *, connection: ConnectionArguments) -> Engine:
    """Return an engine for one thread per connection; it connects when it is first used."""
    engine = create_engine(**_engine_arguments(settings, connection))
    event.listen(engine, "checkout", _refuse_if_closed)
    return engine


def build_async_engine(
    settings: DatabaseSettings,
    *,
    connection: ConnectionArguments,
    **options: Any,  # noqa: ANN401  # further arguments of SQLAlchemy's
) -> AsyncEngine:
    """Return an engine for one event loop; it connects when it is first used."""
    engine = create_async_engine(**_engine_arguments(settings, connection), **options)
    event.listen(engine.sync_engine, "checkout", _refuse_if_closed)
    return engine


def _engine_arguments(
    settings: DatabaseSettings, connection: ConnectionArguments
) -> dict[str, Any]:
    return {
        "url": _url(settings).set(drivername="postgresql+psycopg"),
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        # The message of a failed statement would put clients' data into the log.
        "hide_parameters": True,
        "connect_args": dict(connection),
    }


def _url(settings: DatabaseSettings) -> URL:
    return make_url(settings.database_url.get_secret_value())


def _refuse_if_closed(_: DBAPIConnection, record: ConnectionPoolEntry, *__: object) -> None:
    """Make the pool replace an idle connection that the server closed, for example at a restart.

    Raises:
        DisconnectionError: makes the pool connect anew.
    """
    if is_closed(cast("psycopg.Connection[Any]", record.driver_connection)):
        raise DisconnectionError


def is_closed(driver: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return whether an idle connection is closed, by this process or by the server.

    An idle server sends nothing, so readable data means that it closed the connection. Polling
    costs no round trip; SQLAlchemy's `pool_pre_ping` costs one per transaction.
    """
    if driver.closed:
        return True
    readable = select.poll()
    readable.register(driver.fileno(), select.POLLIN)
    return bool(readable.poll(0))


def is_outage(error: BaseException) -> bool:
    """Return whether the database causes the error, so that the same work may succeed later.

    Outages are: no connection, a lost connection, a full disk, a read-only standby, a database
    that is not migrated yet.
    """
    # The server also ends a transaction that is idle for too long, with an `InternalError`.
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = getattr(getattr(error, "orig", error), "sqlstate", None) or ""
    match error:
        case ProgrammingError() | psycopg.ProgrammingError():
            return state in NOT_READY
        case InternalError() | psycopg.InternalError():
            return state == READ_ONLY
        case OperationalError() | InterfaceError() | psycopg.OperationalError():
            return not state.startswith(LIMIT_EXCEEDED)
    return isinstance(error, PoolTimeout)


async def through_outages(work: Callable[[], Awaitable[Result]], *, doing: str) -> Result:
    """Await `work()`; repeat it during an outage of the database; see `outages.outlast`."""
    return await outages.outlast(
        work, event="database.unavailable", is_outage=is_outage, doing=doing
    )


async def connect(
    settings: DatabaseSettings, *, connection: ConnectionArguments
) -> psycopg.AsyncConnection[Any]:
    """Open a connection outside any pool, which commits each statement.

    Raises:
        psycopg.OperationalError: the database cannot be reached.
    """
    url = _url(settings).set(drivername="postgresql")
    return await psycopg.AsyncConnection.connect(
        url.render_as_string(hide_password=False), autocommit=True, **connection
    )


async def listen(
    connect: Connect,
    channels: Mapping[str, Notify],
    *,
    connected: Callable[[], None] = lambda: None,
    lost: Callable[[], None] = lambda: None,
) -> Never:
    """Pass the payload of each notification to the function of its channel; reconnect when necessary.

    After each connect every function gets None, because notifications sent before are lost. LISTEN
    belongs to a session: behind a pooler that shares sessions no notification arrives.

    Args:
        connect: opens a connection that is used for nothing else.
        channels: the function of each channel, which must not block.
        connected: called after each connect; must not block.
        lost: called when the connection is lost; must not block.
    """
    statement = sql.SQL("; ").join(
        sql.SQL("LISTEN {}").format(sql.Identifier(channel)) for channel in channels
    )

    async def start() -> psycopg.AsyncConnection[Any]:
        connection = await connect()
        try:
            await connection.execute(statement)
        except BaseException:
            # Cancelled here, the caller would never close the connection.
            await connection.close()
            raise
        return connection

    names = ", ".join(channels)
    while True:
        connection = await outages.outlast(
            start,
            event="database.unavailable",
            # Nothing awaits the gateway's listener: an error that ended it would go unnoticed.
            is_outage=lambda error: isinstance(error, psycopg.Error),
            doing=f"listening on {names}",
        )
        try:
            async with connection:
                log.info("database.listening", channels=names)
                connected()
                for notify in channels.values():
                    notify(None)
                async for notification in connection.notifies():
                    channels[notification.channel](notification.payload)
        except psycopg.Error as error:
            log.warning("database.listening_lost", channels=names, error=outages.describe(error))
            lost()
        # A server that accepts and drops every connection must not cause a tight loop.
        await asyncio.sleep(RECONNECT_PAUSE.total_seconds())
