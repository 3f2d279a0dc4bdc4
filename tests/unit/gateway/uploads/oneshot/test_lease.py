"""The upload of a form does not expire, even if the database is unreachable for a moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import pytest
from sqlalchemy import Update
from sqlalchemy.exc import OperationalError

from gateway.uploads.oneshot import lease
from schemas.ids import UploadId

if TYPE_CHECKING:
    from gateway.context import Context

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(milliseconds=30)


class FakeDatabase:
    """Records the expiry of each renewal, after some failures."""

    def __init__(self, *, failures: int = 0) -> None:
        self.expiries: list[datetime] = []
        self.renewed = asyncio.Event()
        self._failures = failures

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["FakeDatabase"]:
        yield self

    async def execute(self, statement: Update) -> None:
        if self._failures:
            self._failures -= 1
            raise OperationalError("UPDATE", {}, Exception("unreachable"))
        self.expiries.append(statement.compile().params["expires_at"])
        self.renewed.set()


async def first_expiry(database: FakeDatabase, *, upload_ttl: timedelta) -> datetime:
    context = SimpleNamespace(
        database=database,
        settings=SimpleNamespace(form_lease=LEASE, upload_ttl=upload_ttl),
        clock=lambda: START,
    )
    async with (
        lease.renewed(cast("Context", context), UploadId(uuid4())),
        asyncio.timeout(20),
    ):
        await database.renewed.wait()
    return database.expiries[0]


async def test_a_renewal_extends_the_upload_by_a_lease() -> None:
    assert await first_expiry(FakeDatabase(), upload_ttl=timedelta(days=1)) == START + LEASE


async def test_renewals_never_extend_the_upload_beyond_its_lifetime() -> None:
    assert await first_expiry(FakeDatabase(), upload_ttl=LEASE / 2) == START + LEASE / 2


async def test_renewals_continue_after_a_failed_one() -> None:
    database = FakeDatabase(failures=2)

    assert await first_expiry(database, upload_ttl=timedelta(days=1)) == START + LEASE


async def test_renewals_stop_with_the_block() -> None:
    before = asyncio.all_tasks()
    await first_expiry(FakeDatabase(), upload_ttl=timedelta(days=1))
    assert asyncio.all_tasks() == before
