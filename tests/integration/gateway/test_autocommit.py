"""`AutocommitConnection`: statements that the driver runs, with only the pool of SQLAlchemy."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from sqlalchemy.exc import DataError, OperationalError
from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from gateway import db
from schemas.settings import DatabaseSettings

pytestmark = pytest.mark.anyio

OWN_PID = "SELECT pg_backend_pid() AS pid"
STATE_OF = "SELECT state FROM pg_stat_activity WHERE pid = %(pid)s"


@pytest.fixture
async def connection(database: DatabaseSettings) -> AsyncIterator[db.AutocommitConnection]:
    one = database.model_copy(update={"database_pool_size": 1})
    engine = db.build_autocommit_engine(one)
    connection = db.AutocommitConnection(engine)
    yield connection
    await connection.close()
    await engine.dispose()


@pytest.fixture
async def other(database: DatabaseSettings) -> AsyncIterator[db.AutocommitConnection]:
    engine = db.build_autocommit_engine(database)
    connection = db.AutocommitConnection(engine)
    yield connection
    await connection.close()
    await engine.dispose()


async def test_a_row_has_an_attribute_for_each_column(connection: db.AutocommitConnection) -> None:
    row = await connection.first_row("SELECT %(a)s + 1 AS sum, 'b' AS letter", {"a": 1})
    assert row is not None
    assert (row.sum, row.letter) == (2, "b")

    assert await connection.first_row("SELECT 1 WHERE %(a)s > 1", {"a": 1}) is None


async def test_a_statement_is_committed_when_it_returns(
    connection: db.AutocommitConnection, other: db.AutocommitConnection
) -> None:
    insert = "INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'acme') RETURNING id"
    made = await connection.first_row(insert, {})
    assert made is not None

    assert await other.first_row("SELECT id FROM tenants WHERE name = 'acme'", {}) == made


async def test_an_error_has_the_type_that_a_transaction_raises_and_contains_no_values(
    connection: db.AutocommitConnection,
) -> None:
    with pytest.raises(DataError) as failure:
        await connection.first_row("SELECT 1 / (length(%(a)s) - 7) AS secret", {"a": "hunter2"})

    assert type(failure.value.orig).__name__ == "DivisionByZero"
    assert "hunter2" not in str(failure.value)
    assert await connection.first_row("SELECT 1 AS one", {}) == (1,)


async def test_a_connection_that_the_server_closed_is_replaced(
    connection: db.AutocommitConnection, other: db.AutocommitConnection
) -> None:
    before = await connection.first_row(OWN_PID, {})
    assert before is not None
    ended = "SELECT pg_terminate_backend(%(pid)s, 20000) AS is_ended"
    assert await other.first_row(ended, {"pid": before.pid}) == (True,)

    after = await connection.first_row(OWN_PID, {})

    assert after is not None
    assert after.pid != before.pid
    # The new connection is in autocommit mode too.
    assert await other.first_row(STATE_OF, {"pid": after.pid}) == ("idle",)


async def test_a_connection_lost_within_a_statement_raises_and_is_replaced(
    connection: db.AutocommitConnection, other: db.AutocommitConnection
) -> None:
    mine = await connection.first_row(OWN_PID, {})
    assert mine is not None
    sleeping = asyncio.create_task(connection.first_row("SELECT pg_sleep(60)", {}))
    await until_busy(other, pid=mine.pid)
    await other.first_row("SELECT pg_terminate_backend(%(pid)s, 20000)", {"pid": mine.pid})

    with pytest.raises(OperationalError) as failure:
        await sleeping

    assert failure.value.connection_invalidated
    assert await connection.first_row("SELECT 1 AS one", {}) == (1,)


async def test_a_cancelled_statement_leaves_no_result_for_the_next_statement(
    connection: db.AutocommitConnection, other: db.AutocommitConnection
) -> None:
    mine = await connection.first_row(OWN_PID, {})
    assert mine is not None
    sleeping = asyncio.create_task(connection.first_row("SELECT pg_sleep(60), 'mine'", {}))
    await until_busy(other, pid=mine.pid)

    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping

    following = await connection.first_row("SELECT 'next' AS whose, pg_backend_pid() AS pid", {})
    assert following is not None
    assert following.whose == "next"
    assert following.pid != mine.pid


async def test_more_statements_than_connections_take_turns(
    connection: db.AutocommitConnection,
) -> None:
    pids = await asyncio.gather(*(connection.first_row(OWN_PID, {}) for _ in range(20)))

    assert len({row.pid for row in pids if row is not None}) == 1


async def test_a_transaction_commits_at_its_end_and_rolls_back_after_an_error(
    connection: db.AutocommitConnection, other: db.AutocommitConnection
) -> None:
    insert = "INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), %(name)s) RETURNING name"
    names = "SELECT array_agg(name) AS all FROM tenants"

    async with connection.transaction() as transaction:
        first, second = await transaction.batch((insert, {"name": "acme"}), (OWN_PID, {}))
        assert await other.first_row(names, {}) == (None,)

    async def insert_and_fail() -> None:
        async with connection.transaction() as transaction:
            await transaction.first_row(insert, {"name": "globex"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await insert_and_fail()

    assert first[0].name == "acme"
    assert await other.first_row(names, {}) == (["acme"],)
    # The connection is used again.
    assert await connection.first_row(OWN_PID, {}) == second[0]


async def test_the_last_batch_of_a_transaction_commits(
    connection: db.AutocommitConnection, other: db.AutocommitConnection
) -> None:
    insert = "INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'acme') RETURNING id"

    async with connection.transaction() as transaction:
        (rows,) = await transaction.batch((insert, {}), is_last=True)
        assert await other.first_row("SELECT id FROM tenants", {}) == rows[0]


async def test_a_failed_statement_of_a_transaction_undoes_the_transaction(
    connection: db.AutocommitConnection,
) -> None:
    insert = "INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'acme') RETURNING id"

    async def insert_and_divide() -> None:
        async with connection.transaction() as transaction:
            await transaction.batch((insert, {}), ("SELECT 1 / 0 AS never", {}))

    with pytest.raises(DataError):
        await insert_and_divide()

    assert await connection.first_row("SELECT count(*) AS tenants FROM tenants", {}) == (0,)


async def test_an_unreachable_database_raises_at_once(database: DatabaseSettings) -> None:
    nowhere = SecretStr("postgresql+psycopg://waybill:x@127.0.0.1:1/waybill")
    engine = db.build_autocommit_engine(database.model_copy(update={"database_url": nowhere}))

    async with asyncio.timeout(db.WAIT_MAX.total_seconds() / 2):
        with pytest.raises(OperationalError):
            await db.AutocommitConnection(engine).first_row("SELECT 1", {})
    await engine.dispose()


async def until_busy(other: db.AutocommitConnection, *, pid: int) -> None:
    """Wait until a connection runs a statement."""
    looking = AsyncRetrying(
        retry=retry_if_result(lambda state: state != ("active",)),
        stop=stop_after_delay(20),
        wait=wait_fixed(0.01),
    )
    await looking(other.first_row, STATE_OF, {"pid": pid})
