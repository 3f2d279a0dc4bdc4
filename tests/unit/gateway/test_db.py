"""The lock that serialises the changes of one tenant."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.db import Database
from schemas.ids import TenantId

pytestmark = pytest.mark.anyio

ACME = TenantId(uuid4())
OTHER = TenantId(uuid4())


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    """A database to which no statement is sent."""
    engine = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    yield Database(engine, lock_timeout=timedelta(milliseconds=50))
    await engine.dispose()


async def take_lock(database: Database, tenant_id: TenantId) -> None:
    async with database.tenant_lock(tenant_id):
        pass


async def hold_lock(database: Database, tenant_id: TenantId) -> None:
    async with database.tenant_lock(tenant_id):
        await asyncio.Event().wait()


async def test_a_tenant_does_not_wait_for_another_tenant(database: Database) -> None:
    async with database.tenant_lock(ACME):
        await take_lock(database, OTHER)


async def test_every_waiting_request_times_out_independently(database: Database) -> None:
    async with database.tenant_lock(ACME):
        waiting = [take_lock(database, ACME) for _ in range(20)]
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {PoolTimeout}
    await take_lock(database, ACME)


async def test_a_cancelled_holder_or_waiter_leaves_the_lock_free(database: Database) -> None:
    holder = asyncio.create_task(hold_lock(database, ACME))
    waiter = asyncio.create_task(hold_lock(database, ACME))
    await asyncio.sleep(0)
    for leaving in (waiter, holder):
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
    await take_lock(database, ACME)
