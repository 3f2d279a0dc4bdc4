"""`Database.pipelined`: statements that the driver runs in a transaction of SQLAlchemy's."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import DataError

from gateway import db
from schemas.settings import DatabaseSettings
from tests.integration.gateway.test_autocommit import OWN_PID, until_busy

pytestmark = pytest.mark.anyio

LIMIT = "SELECT set_config('statement_timeout', %(limit)s, true)"


@pytest.fixture
async def one(database: DatabaseSettings) -> AsyncIterator[db.Database]:
    """A database with a single connection."""
    engine = db.build_engine(database.model_copy(update={"database_pool_size": 1}))
    yield db.Database(engine)
    await engine.dispose()


@pytest.fixture
async def other(database: DatabaseSettings) -> AsyncIterator[db.AutocommitConnection]:
    engine = db.build_autocommit_engine(database)
    connection = db.AutocommitConnection(engine)
    yield connection
    await connection.close()
    await engine.dispose()


async def test_the_first_statements_hold_for_the_others_of_the_transaction(
    one: db.Database,
) -> None:
    async with one.pipelined((LIMIT, {"limit": "1234ms"})) as statements:
        ((limit,),) = await statements.rows("SHOW statement_timeout", {})
        (first, second) = await statements.batch(
            ("SELECT 1 AS a", {}), ("SELECT %(b)s::int", {"b": 2})
        )
    async with one.pipelined() as statements:
        ((after,),) = await statements.rows("SHOW statement_timeout", {})

    assert (limit, first, second) == ("1234ms", [(1,)], [(2,)])
    assert after != limit


async def test_a_statement_that_fails_ends_the_transaction_alone(one: db.Database) -> None:
    with pytest.raises(DataError):
        async with one.pipelined((LIMIT, {"limit": "1234ms"})) as statements:
            await statements.rows("SELECT 1 / %(zero)s::int", {"zero": 0})

    async with one.pipelined() as statements:
        assert await statements.rows("SELECT 1", {}) == [(1,)]


async def test_a_cancelled_statement_leaves_no_result_for_the_next_transaction(
    one: db.Database, other: db.AutocommitConnection
) -> None:
    async with one.pipelined() as statements:
        ((mine,),) = await statements.rows(OWN_PID, {})

    async def sleep() -> None:
        async with one.pipelined() as statements:
            await statements.rows("SELECT pg_sleep(60), 'mine'", {})

    sleeping = asyncio.create_task(sleep())
    await until_busy(other, pid=mine)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping

    async with one.pipelined() as statements:
        assert await statements.rows("SELECT 'next'", {}) == [("next",)]
