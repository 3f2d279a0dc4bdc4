"""The transactions of one tenant that follow each other, and what they do not keep waiting."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.db import Transaction
from schemas.ids import TenantId

pytestmark = pytest.mark.anyio

ACME = TenantId(uuid4())
OTHER = TenantId(uuid4())


@pytest.fixture
async def transaction() -> AsyncIterator[Transaction]:
    """Transactions that are never told to do anything, and so need no database."""
    engine = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    yield Transaction(engine, patience=timedelta(milliseconds=50))
    await engine.dispose()


async def take(transaction: Transaction, tenant_id: TenantId) -> None:
    async with transaction.in_turn(tenant_id):
        pass


async def hold(transaction: Transaction, tenant_id: TenantId) -> None:
    async with transaction.in_turn(tenant_id):
        await asyncio.Event().wait()


async def test_one_tenant_does_not_wait_for_another(transaction: Transaction) -> None:
    async with transaction.in_turn(ACME):
        await take(transaction, OTHER)


async def test_however_many_wait_none_waits_longer_than_its_patience(
    transaction: Transaction,
) -> None:
    async with transaction.in_turn(ACME):
        waiting = [take(transaction, ACME) for _ in range(20)]
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {PoolTimeout}
    await take(transaction, ACME)


async def test_who_goes_away_while_it_waits_or_in_its_turn_leaves_it_to_the_next(
    transaction: Transaction,
) -> None:
    in_turn = asyncio.create_task(hold(transaction, ACME))
    waiting = asyncio.create_task(hold(transaction, ACME))
    await asyncio.sleep(0)
    for leaving in (waiting, in_turn):
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
    await take(transaction, ACME)
