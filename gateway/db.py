"""Engines and transactions of a gateway process."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString, Protocol, cast
from weakref import WeakValueDictionary

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)
from sqlalchemy.pool import PoolProxiedConnection

from schemas.ids import TenantId
from schemas.runtime import postgres
from schemas.settings import DatabaseSettings

WAIT_MAX: Final = timedelta(seconds=10)
"""How long a request waits for a connection or for its tenant's lock."""

CONNECTION: Final = postgres.connection_arguments(
    name="waybill-gateway",
    # A client waits: a vanished server must become an error within seconds.
    silence_max=timedelta(seconds=15),
)
LISTENER_CONNECTION: Final = {**CONNECTION, "application_name": "waybill-gateway-listener"}
COMMAND_CONNECTION: Final = {**CONNECTION, "application_name": "waybill"}
PROBE_CONNECTION: Final = {**CONNECTION, "application_name": "waybill-gateway-readiness"}


TURNS: Final = 3
"""Statements of one tenant that one process runs at a time, if they wait for each other."""


class TenantTurns:
    """Lets a few requests of each tenant continue at a time; the others wait in memory.

    The database serialises the changes of one tenant's counters, and a request that waits there
    holds a connection. Without turns a burst of one tenant's uploads would take every connection
    of the pool.

    Never nest two turns of one tenant: the inner one could wait for the outer one.

    Args:
        count: the requests of one tenant that continue at a time.
        wait_max: how long a request waits.
    """

    def __init__(self, *, count: int, wait_max: timedelta) -> None:
        self._count = count
        self._wait_max = wait_max
        self._tenants = WeakValueDictionary[TenantId, asyncio.Semaphore]()

    @asynccontextmanager
    async def of(self, tenant_id: TenantId) -> AsyncIterator[None]:
        """Wait for a turn of the tenant; it ends with the block.

        Raises:
            sqlalchemy.exc.TimeoutError: there was no turn in time.
        """
        # The dictionary is weak: only the requests that have or await a turn keep it alive.
        turns = self._tenants.setdefault(tenant_id, asyncio.Semaphore(self._count))
        # While the database does not answer, each request keeps its turn until its own timeout:
        # without a limit here, the last of many requests would wait for the sum of these timeouts.
        try:
            async with asyncio.timeout(self._wait_max.total_seconds()):
                await turns.acquire()
        except TimeoutError as error:
            raise PoolTimeout("other changes of this tenant took too long") from error
        try:
            yield
        finally:
            turns.release()


class Database:
    """The gateway's transactions.

    Never hold a transaction open while a request body arrives: a slow client would
    keep a connection from all other requests.
    """

    def __init__(self, engine: AsyncEngine, *, lock_timeout: timedelta = WAIT_MAX) -> None:
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._turns = TenantTurns(count=1, wait_max=lock_timeout)

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session; commit when the block ends, roll back when it raises."""
        return self._sessions.begin()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction whose statements all read the same state of the database."""
        async with self.transaction() as session:
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    @asynccontextmanager
    async def pipelined(
        self, *first: tuple[LiteralString, Mapping[str, Any]]
    ) -> AsyncIterator["SessionPipeline"]:
        """Open a transaction whose statements go to the driver without the work of SQLAlchemy.

        Args:
            first: statements that share the round trip of the first one of the block.

        Raises:
            sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError: as `Statements.rows`.
        """
        async with self.transaction() as session:
            connection = await session.connection()
            driver = _driver_of(await connection.get_raw_connection())
            yield SessionPipeline(connection, driver, first=first)

    @asynccontextmanager
    async def tenant_lock(self, tenant_id: TenantId) -> AsyncIterator[AsyncSession]:
        """Open a transaction that changes a tenant's usage or steps; one per tenant and process.

        See `TenantTurns`.

        Raises:
            sqlalchemy.exc.TimeoutError: the lock was not free in time.
        """
        async with self._turns.of(tenant_id), self.transaction() as session:
            yield session


class Statements(Protocol):
    """Runs statements through the driver, without the work of SQLAlchemy around each of them.

    A statement is SQL with the driver's placeholders, `%(name)s`. The driver prepares a statement
    that a connection executes often, so its text must not depend on the values.
    """

    async def rows(self, statement: LiteralString, values: Mapping[str, Any]) -> Sequence[Any]:
        """Run a statement and return its rows, with an attribute for each column.

        Raises:
            sqlalchemy.exc.DBAPIError: the driver's error, wrapped as in a transaction.
            sqlalchemy.exc.TimeoutError: no connection was free in time.
        """

    async def first_row(self, statement: LiteralString, values: Mapping[str, Any]) -> Any | None:  # noqa: ANN401  # a named tuple of the statement's columns
        """Run a statement and return its first row; see `rows`."""
        rows = await self.rows(statement, values)
        return rows[0] if rows else None

    async def batch(
        self,
        *statements: tuple[LiteralString, Mapping[str, Any]],
        is_last: bool = False,  # noqa: ARG002  # a hint
    ) -> list[Sequence[Any]]:
        """Run statements in their order, if possible in one round trip; return the rows of each.

        Args:
            statements: each returns rows.
            is_last: nothing follows in the transaction, so that its commit may share the round trip.
        """
        return [await self.rows(statement, values) for statement, values in statements]


class SessionStatements(Statements):
    """Runs statements in the transaction of a session, after the pending changes of its objects."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def rows(self, statement: LiteralString, values: Mapping[str, Any]) -> Sequence[Any]:
        await self._session.flush()
        connection = await self._session.connection()
        return (await connection.exec_driver_sql(statement, dict(values))).all()


class SessionPipeline(Statements):
    """Runs statements in a transaction of SQLAlchemy's; see `Database.pipelined`.

    Args:
        connection: has the transaction.
        driver: the connection of the driver.
        first: statements that share the round trip of the first one.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        driver: psycopg.AsyncConnection[Any],
        *,
        first: Sequence[tuple[str, Mapping[str, Any]]],
    ) -> None:
        self._connection = connection
        self._driver = driver
        self._first = first

    async def rows(self, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
        return (await self.batch((statement, values)))[0]

    async def batch(
        self,
        *statements: tuple[str, Mapping[str, Any]],
        is_last: bool = False,  # noqa: ARG002  # the transaction ends with its block
    ) -> list[Sequence[Any]]:
        first, self._first = self._first, ()
        try:
            found = await self.send([*first, *statements])
        except psycopg.Error as error:
            raise _wrapped(error, was_lost=self._driver.closed) from error
        except BaseException:
            # After a cancellation an answer may be pending, as in `AutocommitConnection.rows`.
            await self._connection.invalidate()
            raise
        return found[len(first) :]

    async def send(
        self, statements: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> list[Sequence[Any]]:
        """Run statements in one round trip; return the rows of those that have some.

        Raises:
            psycopg.Error: the driver's own error.
        """
        cursors = [self._driver.cursor(row_factory=namedtuple_row) for _ in statements]
        async with self._driver.pipeline():
            for cursor, (statement, values) in zip(cursors, statements, strict=True):
                await cursor.execute(statement.encode(), values)
        return [await cursor.fetchall() for cursor in cursors if cursor.description]


class AutocommitConnection(Statements):
    """Runs statements that are each a whole transaction, in one round trip.

    The connections belong to the engine's pool, with its limit and its timeout. Idle ones are kept
    here while no request waits for the pool: taking a connection from the pool and giving it back
    costs as much as a statement.

    Args:
        engine: from `build_autocommit_engine`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turns = TenantTurns(count=TURNS, wait_max=WAIT_MAX)
        self._idle: list[PoolProxiedConnection] = []
        self._waiting = 0

    def turn(self, tenant_id: TenantId) -> AbstractAsyncContextManager[None]:
        """Wait for a turn, for a statement that locks the tenant's usage; see `TenantTurns`."""
        return self._turns.of(tenant_id)

    async def rows(self, statement: LiteralString, values: Mapping[str, Any]) -> Sequence[Any]:
        connection = await self._take()
        driver = _driver_of(connection)
        try:
            cursor = driver.cursor(row_factory=namedtuple_row)
            await cursor.execute(statement, values)
            return await cursor.fetchall()
        except BaseException as error:
            was_lost = driver.closed
            # After a cancellation the pending answer would go to the connection's next user.
            # The pool replaces a closed connection when it is next taken.
            await driver.close()
            if isinstance(error, psycopg.Error):
                raise _wrapped(error, was_lost=was_lost) from error
            raise
        finally:
            self._give_back(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["PipelinedTransaction"]:
        """Open a transaction; commit when the block ends, roll back when it raises.

        Raises:
            sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError: as `rows`.
        """
        connection = await self._take()
        driver = _driver_of(connection)
        transaction = PipelinedTransaction(driver)
        try:
            try:
                yield transaction
                await transaction.commit()
            except psycopg.Error:
                raise
            except Exception:
                await transaction.roll_back()
                raise
        except psycopg.Error as error:
            was_lost = driver.closed
            await driver.close()
            raise _wrapped(error, was_lost=was_lost) from error
        except BaseException as error:
            if not isinstance(error, Exception):
                # After a cancellation an answer may be pending, as in `rows`.
                await driver.close()
            raise
        finally:
            self._give_back(connection)

    async def close(self) -> None:
        """Close the idle connections; call it when no statement runs."""
        while self._idle:
            connection = self._idle.pop()
            await _driver_of(connection).close()
            connection.close()

    async def _take(self) -> PoolProxiedConnection:
        while self._idle:
            connection = self._idle.pop()
            if not postgres.is_closed(_driver_of(connection)):
                return connection
            connection.close()
        self._waiting += 1
        try:
            return await self._engine.raw_connection()
        except psycopg.Error as error:
            raise _wrapped(error, was_lost=False) from error
        finally:
            self._waiting -= 1

    def _give_back(self, connection: PoolProxiedConnection) -> None:
        if self._waiting or _driver_of(connection).closed:
            connection.close()
        else:
            self._idle.append(connection)

    async def notify(self, channel: str, payload: str) -> None:
        """Send a notification to every connection that listens to the channel.

        Raises:
            sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError: as `first_row`.
        """
        values = {"channel": channel, "payload": payload}
        await self.first_row("SELECT pg_notify(%(channel)s, %(payload)s)", values)


class PipelinedTransaction(Statements):
    """A transaction on a connection in autocommit mode; see `AutocommitConnection.transaction`.

    It begins in the round trip of its first statement.
    """

    def __init__(self, driver: psycopg.AsyncConnection[Any]) -> None:
        self._driver = driver
        self._is_open = False

    async def rows(self, statement: LiteralString, values: Mapping[str, Any]) -> Sequence[Any]:
        return (await self.batch((statement, values)))[0]

    async def batch(
        self, *statements: tuple[LiteralString, Mapping[str, Any]], is_last: bool = False
    ) -> list[Sequence[Any]]:
        cursors = [self._driver.cursor(row_factory=namedtuple_row) for _ in statements]
        async with self._driver.pipeline():
            if not self._is_open:
                self._is_open = True
                await self._driver.execute("BEGIN")
            for cursor, (statement, values) in zip(cursors, statements, strict=True):
                await cursor.execute(statement, values)
            if is_last:
                await self._driver.execute("COMMIT")
        self._is_open = not is_last
        return [await cursor.fetchall() for cursor in cursors]

    async def copy(self, statement: LiteralString, rows: bytes) -> None:
        """Send rows to a statement `COPY … FROM STDIN`, after the first statement."""
        async with self._driver.cursor().copy(statement) as copy:
            await copy.write(rows)

    async def commit(self) -> None:
        """Commit, unless the last batch did."""
        await self._end("COMMIT")

    async def roll_back(self) -> None:
        """Undo the statements, unless they are committed."""
        await self._end("ROLLBACK")

    async def _end(self, statement: LiteralString) -> None:
        if self._is_open:
            self._is_open = False
            await self._driver.execute(statement)


def _driver_of(connection: PoolProxiedConnection) -> psycopg.AsyncConnection[Any]:
    return cast("psycopg.AsyncConnection[Any]", connection.driver_connection)


async def transaction_time(session: AsyncSession) -> datetime:
    """Return the database's time at the start of the session's transaction.

    Times that decide come from the database: the clocks of several gateways differ.
    """
    return (await session.scalars(select(func.now()))).one()


def build_engine(
    settings: DatabaseSettings,
    *,
    connection: postgres.ConnectionArguments = CONNECTION,
    **options: Any,  # noqa: ANN401  # further arguments of SQLAlchemy's
) -> AsyncEngine:
    """Return an engine; a request waits for a free connection for `WAIT_MAX`."""
    return postgres.build_async_engine(
        settings,
        connection=connection,
        pool_timeout=WAIT_MAX.total_seconds(),
        **options,
    )


def build_autocommit_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Return an engine whose connections commit each statement; it has a pool of its own."""
    # Every statement is committed at once: there is never a transaction to roll back.
    return build_engine(settings, isolation_level="AUTOCOMMIT", pool_reset_on_return=None)


def _wrapped(error: psycopg.Error, *, was_lost: bool) -> BaseException:
    """Return the driver's error as SQLAlchemy's.

    Args:
        error: the error that the driver raised.
        was_lost: whether the connection ended with the error; every such error is an outage.
    """
    return DBAPIError.instance(
        None,
        None,
        error,
        dbapi_base_err=psycopg.Error,
        hide_parameters=True,
        connection_invalidated=was_lost,
    )
