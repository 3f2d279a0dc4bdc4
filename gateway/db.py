"""Engine, transactions and the way to listen, for one process."""

import asyncio
import select
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Final, LiteralString, cast
from weakref import WeakValueDictionary

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from schemas.ids import TenantId
from schemas.settings import DatabaseSettings

WAIT_MAX: Final = timedelta(seconds=10)
"""How long a request waits for a connection or for its tenant's lock."""

# A server that vanished without a word must become an error within seconds, not a hang.
_CONNECTION: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    # After a failover the old primary may still answer, read-only.
    "target_session_attrs": "read-write",
}


class Database:
    """The gateway's transactions.

    Never hold a transaction open while a request body arrives: a slow client would
    keep a connection from all other requests.
    """

    def __init__(self, engine: AsyncEngine, *, lock_timeout: timedelta = WAIT_MAX) -> None:
        self._lock_timeout = lock_timeout
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._tenant_locks = WeakValueDictionary[TenantId, asyncio.Lock]()

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session; commit when the block ends, roll back when it raises."""
        return self._sessions.begin()

    @asynccontextmanager
    async def tenant_lock(self, tenant_id: TenantId) -> AsyncIterator[AsyncSession]:
        """Open a transaction that changes a tenant's usage; one per tenant and process at a time.

        The database serialises changes of one tenant's usage, and a transaction that waits
        there holds a connection. Without this lock a burst of one tenant's uploads would
        take every connection of the pool.

        Never nest two locks of one tenant: the inner one would wait for the outer one.

        Raises:
            sqlalchemy.exc.TimeoutError: the lock was not free in time.
        """
        # The dictionary is weak: only the requests that hold or await a lock keep it alive.
        lock = self._tenant_locks.setdefault(tenant_id, asyncio.Lock())
        await self._acquire(lock)
        try:
            async with self.transaction() as session:
                yield session
        finally:
            lock.release()

    async def _acquire(self, lock: asyncio.Lock) -> None:
        # While the database does not answer, each holder keeps the lock until its own timeout:
        # without a limit here, the last of many would wait for the sum of them.
        try:
            async with asyncio.timeout(self._lock_timeout.total_seconds()):
                await lock.acquire()
        except TimeoutError as error:
            raise PoolTimeout("other changes of this tenant took too long") from error


class AutocommitConnection:
    """Runs statements that are a whole transaction each, in one round trip.

    The driver runs them by itself: SQLAlchemy's own work around each is several times
    the driver's, and a small chunk consists of little else than two of them.

    Args:
        engine: from `build_autocommit_engine`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def first_row(self, statement: LiteralString, values: Mapping[str, Any]) -> Any | None:  # noqa: ANN401  # a named tuple of the statement's columns
        """Run a statement and return its first row, with an attribute for each column.

        Args:
            statement: with placeholders as the driver has them, `%(name)s`.
            values: of the placeholders.

        Raises:
            sqlalchemy.exc.DBAPIError: what the driver raised, as a transaction would raise it.
            sqlalchemy.exc.TimeoutError: no connection was free in time.
        """
        try:
            connection = await self._engine.raw_connection()
        except psycopg.Error as error:
            raise _as_sqlalchemy_raises(error, was_lost=False) from error
        driver = cast("psycopg.AsyncConnection[Any]", connection.driver_connection)
        try:
            cursor = driver.cursor(row_factory=namedtuple_row)
            await cursor.execute(statement, values)
            return await cursor.fetchone()
        except BaseException as error:
            was_lost = driver.closed
            # Cancelled, say: what it would answer next belongs to nobody. The pool notices
            # a closed connection when it would lend it the next time.
            await driver.close()
            if isinstance(error, psycopg.Error):
                raise _as_sqlalchemy_raises(error, was_lost=was_lost) from error
            raise
        finally:
            connection.close()


def build_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Return the engine; it connects when it is first used."""
    return _build_engine(settings)


def build_autocommit_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Return an engine whose connections commit every statement by themselves.

    `DATABASE_POOL_SIZE` holds for each engine by itself.
    """
    # There is never a transaction that had to be rolled back.
    return _build_engine(settings, isolation_level="AUTOCOMMIT", pool_reset_on_return=None)


def _build_engine(settings: DatabaseSettings, **options: Any) -> AsyncEngine:  # noqa: ANN401  # as the library takes them
    engine = create_async_engine(
        _url(settings).set(drivername="postgresql+psycopg"),
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=WAIT_MAX.total_seconds(),
        # A statement that fails may be logged; what the client sent stays out of it.
        hide_parameters=True,
        connect_args={**_CONNECTION, "application_name": "waybill-gateway"},
        **options,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_if_ended)
    return engine


async def connect_to_listen(settings: DatabaseSettings) -> psycopg.AsyncConnection[Any]:
    """Open a connection outside the pool, for ``LISTEN``.

    Raises:
        psycopg.OperationalError: the database cannot be reached.
    """
    url = _url(settings).set(drivername="postgresql")
    return await psycopg.AsyncConnection.connect(
        url.render_as_string(hide_password=False),
        autocommit=True,
        application_name="waybill-gateway-watch",
        **_CONNECTION,
    )


def _refuse_if_ended(connection: DBAPIConnection, *_: object) -> None:
    """Have the pool connect anew where the server ended an idle connection, after a restart say.

    An idle server says nothing, so anything to read is its farewell; looking
    costs no round trip, which a ping before every transaction does.

    Raises:
        DisconnectionError: the pool's own way of being told.
    """
    driver = cast("psycopg.AsyncConnection[Any]", connection.driver_connection)
    if driver.closed:
        raise DisconnectionError
    waiting = select.poll()
    waiting.register(driver.fileno(), select.POLLIN)
    if waiting.poll(0):
        raise DisconnectionError


def _as_sqlalchemy_raises(error: psycopg.Error, *, was_lost: bool) -> BaseException:
    """Return an error of the driver in SQLAlchemy's words.

    Args:
        error: what the driver raised.
        was_lost: whether the connection ended with it; whatever the error is, that is an outage.
    """
    return DBAPIError.instance(
        None,
        None,
        error,
        dbapi_base_err=psycopg.Error,
        hide_parameters=True,
        connection_invalidated=was_lost,
    )


def _url(settings: DatabaseSettings) -> URL:
    return make_url(settings.database_url.get_secret_value())
