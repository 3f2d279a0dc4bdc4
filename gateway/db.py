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

PATIENCE: Final = timedelta(seconds=10)
"""How long a request waits for a connection, or for its turn to have one."""

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


class Transaction:
    """Opens transactions: `async with transaction() as session`.

    One commits when its block ends and rolls back when it raises. Never hold
    one open while a request's body comes in: a slow client would keep a
    connection from everybody else.
    """

    def __init__(self, engine: AsyncEngine, *, patience: timedelta = PATIENCE) -> None:
        self._patience = patience
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._turns = WeakValueDictionary[TenantId, asyncio.Lock]()

    def __call__(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self._sessions.begin()

    @asynccontextmanager
    async def in_turn(self, tenant_id: TenantId) -> AsyncIterator[AsyncSession]:
        """Open a transaction that changes what a tenant has, after the others of that tenant.

        The database lets one at a time at the tenant's sums anyway, and who waits
        there waits with a connection: a burst of one tenant's uploads would take
        all of them, and everybody else's request would stand behind it.

        Never opened within another of the same tenant, which would wait for itself.

        Raises:
            sqlalchemy.exc.TimeoutError: the turn did not come in time.
        """
        # The requests that wait for a turn keep it alive; a tenant without any has none.
        turn = self._turns.setdefault(tenant_id, asyncio.Lock())
        await self._take(turn)
        try:
            async with self() as session:
                yield session
        finally:
            turn.release()

    async def _take(self, turn: asyncio.Lock) -> None:
        # Where the database does not answer, every turn takes as long as that takes to
        # show, and the last of many would wait for all of them, one after the other.
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                await turn.acquire()
        except TimeoutError as error:
            raise PoolTimeout("others of the tenant took too long") from error


class Statements:
    """Runs statements that are a whole transaction each, in one round trip.

    The driver runs them by itself: SQLAlchemy's own work around each is several times
    the driver's, and a small chunk consists of little else than two of them.

    Args:
        engine: from `build_engine_of_statements`.
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


def build_engine_of_statements(settings: DatabaseSettings) -> AsyncEngine:
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
        pool_timeout=PATIENCE.total_seconds(),
        # A statement that fails may be logged; what the client sent stays out of it.
        hide_parameters=True,
        connect_args={**_CONNECTION, "application_name": "waybill-gateway"},
        **options,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_if_ended)
    return engine


def transactions(engine: AsyncEngine) -> Transaction:
    return Transaction(engine)


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
