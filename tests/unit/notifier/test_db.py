import asyncio
from datetime import timedelta

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from notifier import db

pytestmark = pytest.mark.anyio


def raised(kind: type[DBAPIError], cause: Exception) -> DBAPIError:
    """Return the error as SQLAlchemy hands it on."""
    return kind("INSERT INTO inbox VALUES (%s)", {"secret": "in a parameter"}, cause)


@pytest.mark.parametrize(
    "error",
    [
        raised(OperationalError, psycopg.OperationalError("connection refused")),
        raised(OperationalError, errors.DiskFull("could not extend file")),
        raised(InternalError, errors.ReadOnlySqlTransaction("read-only")),
        raised(ProgrammingError, errors.UndefinedTable("relation does not exist")),
        PoolTimeout(),
        psycopg.OperationalError("the connection is lost"),
    ],
)
def test_trouble_of_the_database_is_an_outage(error: Exception) -> None:
    assert db.is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        raised(IntegrityError, errors.UniqueViolation("duplicate key")),
        raised(DataError, errors.NumericValueOutOfRange("out of range")),
        raised(ProgrammingError, psycopg.ProgrammingError("cannot adapt type")),
        ValueError("no"),
    ],
)
def test_trouble_with_the_request_is_not(error: Exception) -> None:
    assert not db.is_outage(error)


def test_an_error_is_described_without_the_statement_and_its_parameters() -> None:
    error = raised(OperationalError, psycopg.OperationalError("refused\nIs the server running?"))
    assert db.describe(error) == "OperationalError: refused"


async def test_work_is_repeated_through_outages_until_it_is_done() -> None:
    outages = [psycopg.OperationalError("away"), psycopg.OperationalError("still away")]

    async def work() -> str:
        if outages:
            raise outages.pop()
        return "done"

    assert await db.through_outages(work, doing="testing") == "done"


async def test_an_error_of_the_work_itself_is_raised_at_once() -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await db.through_outages(work, doing="testing")
    assert tries == 1


async def test_uninterrupted_work_ends_before_its_cancellation_is_raised() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    ended = False

    async def work() -> None:
        nonlocal ended
        reached.set()
        await go_on.wait()
        ended = True

    task = asyncio.create_task(db.uninterrupted(work()))
    await reached.wait()
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


async def test_an_error_of_uninterrupted_work_does_not_take_the_place_of_its_cancellation() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        reached.set()
        await go_on.wait()
        raise OperationalError("select", {}, Exception("the server is gone"))

    async def again_and_again() -> None:
        await db.through_outages(lambda: db.uninterrupted(work()), doing="testing")

    task = asyncio.create_task(again_and_again())
    await reached.wait()
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_wake_up_called_beforehand_is_not_lost() -> None:
    wake = db.WakeUp()
    wake.call()
    async with asyncio.timeout(1):
        await wake.wait(at_most=timedelta(hours=1))


async def test_a_wake_up_wakes_once() -> None:
    wake = db.WakeUp()
    wake.call()
    await wake.wait(at_most=timedelta(hours=1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wake.wait(at_most=timedelta(hours=1))


async def test_without_a_call_a_wait_ends_by_itself() -> None:
    async with asyncio.timeout(1):
        await db.WakeUp().wait(at_most=timedelta(milliseconds=1))
