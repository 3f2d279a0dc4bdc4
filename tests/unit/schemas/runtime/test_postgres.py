import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Self

import psycopg
import pytest
from psycopg import errors
from pydantic import SecretStr
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from schemas.runtime import postgres
from schemas.settings import DatabaseSettings


def wrapped(
    kind: type[DBAPIError], cause: Exception, *, connection_invalidated: bool = False
) -> DBAPIError:
    """Return the driver's error as SQLAlchemy raises it."""
    return kind(
        "INSERT INTO inbox VALUES (%s)",
        {"secret": "in a parameter"},
        cause,
        connection_invalidated=connection_invalidated,
    )


@pytest.mark.parametrize(
    "error",
    [
        wrapped(OperationalError, psycopg.OperationalError("connection refused")),
        wrapped(OperationalError, errors.DiskFull("could not extend file")),
        wrapped(InternalError, errors.ReadOnlySqlTransaction("read-only")),
        wrapped(
            InternalError,
            errors.IdleInTransactionSessionTimeout("terminating connection"),
            connection_invalidated=True,
        ),
        wrapped(ProgrammingError, errors.UndefinedTable("relation does not exist")),
        PoolTimeout(),
        psycopg.OperationalError("the connection is lost"),
        errors.UndefinedTable("relation does not exist"),
        errors.ReadOnlySqlTransaction("read-only"),
    ],
)
def test_an_error_of_the_database_itself_is_an_outage(error: Exception) -> None:
    assert postgres.is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        wrapped(IntegrityError, errors.UniqueViolation("duplicate key")),
        wrapped(DataError, errors.NumericValueOutOfRange("out of range")),
        wrapped(InternalError, errors.InFailedSqlTransaction("aborted")),
        wrapped(OperationalError, errors.ProgramLimitExceeded("the row is too large")),
        wrapped(ProgrammingError, psycopg.ProgrammingError("cannot adapt type")),
        errors.UniqueViolation("duplicate key"),
        errors.SyntaxError("syntax error"),
        errors.InFailedSqlTransaction("aborted"),
        ValueError("no"),
    ],
)
def test_an_error_of_a_statement_is_not_an_outage(error: Exception) -> None:
    assert not postgres.is_outage(error)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_an_engine_uses_psycopg_whatever_driver_the_url_names(scheme: str) -> None:
    settings = DatabaseSettings(database_url=SecretStr(f"{scheme}://waybill:hunter2@db/waybill"))
    engine = postgres.build_engine(settings, connection={})
    assert engine.dialect.driver == "psycopg"
    assert engine.url.password == "hunter2"  # noqa: S105  # of the example


class Notifications:
    """A connection on which notifications arrive from a queue; None closes it."""

    def __init__(self) -> None:
        self.arriving: asyncio.Queue[str | None] = asyncio.Queue()
        self.connects = 0
        self.is_closed = False

    async def connect(self) -> Any:  # noqa: ANN401  # stands for psycopg's connection
        self.connects += 1
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def execute(self, _: object) -> None: ...

    async def close(self) -> None:
        self.is_closed = True

    async def notifies(self) -> AsyncIterator[psycopg.Notify]:
        while (payload := await self.arriving.get()) is not None:
            yield psycopg.Notify("channel", payload, 1)
        raise psycopg.OperationalError("the connection is lost")


@pytest.mark.anyio
async def test_a_lost_connection_is_reopened_and_reported_as_missed_notifications() -> None:
    connection, received = Notifications(), asyncio.Queue[str | None]()
    for payload in ("a", None, "b"):
        connection.arriving.put_nowait(payload)
    listening = asyncio.create_task(
        postgres.listen(connection.connect, {"channel": received.put_nowait})
    )
    async with asyncio.timeout(10):
        assert [await received.get() for _ in range(4)] == [None, "a", None, "b"]
    assert connection.connects == 2
    listening.cancel()


@pytest.mark.anyio
async def test_a_refused_listen_is_repeated() -> None:
    class Refusing(Notifications):
        async def execute(self, _: object) -> None:
            if self.connects == 1:
                raise errors.ReadOnlySqlTransaction("cannot execute LISTEN during recovery")

    connection, received = Refusing(), asyncio.Queue[str | None]()
    listening = asyncio.create_task(
        postgres.listen(connection.connect, {"channel": received.put_nowait})
    )
    async with asyncio.timeout(10):
        assert await received.get() is None
    assert connection.connects == 2
    listening.cancel()


@pytest.mark.anyio
async def test_a_listener_cancelled_during_listen_closes_its_connection() -> None:
    is_executing = asyncio.Event()

    class Hanging(Notifications):
        async def execute(self, _: object) -> None:
            is_executing.set()
            await asyncio.Event().wait()

    connection = Hanging()
    listening = asyncio.create_task(
        postgres.listen(connection.connect, {"channel": lambda _: None})
    )
    await is_executing.wait()
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening
    assert connection.is_closed
