"""The upload of a form does not expire, even if the database is unreachable for a moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
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

LEASE = timedelta(milliseconds=30)


class FakeDatabase:
    """Accepts renewals, after some failures."""

    def __init__(self, *, failures: int = 0) -> None:
        self.renewed = asyncio.Event()
        self._failures = failures

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["FakeDatabase"]:
        yield self

    async def execute(self, _: Update) -> None:
        if self._failures:
            self._failures -= 1
            raise OperationalError("UPDATE", {}, Exception("unreachable"))
        self.renewed.set()


async def until_renewed(database: FakeDatabase) -> None:
    context = SimpleNamespace(
        database=database,
        settings=SimpleNamespace(form_lease=LEASE, upload_ttl=timedelta(days=1)),
    )
    async with (
        lease.renewed(cast("Context", context), UploadId(uuid4())),
        asyncio.timeout(20),
    ):
        await database.renewed.wait()


async def test_renewals_continue_after_a_failed_one() -> None:
    await until_renewed(FakeDatabase(failures=2))


async def test_renewals_stop_with_the_block() -> None:
    before = asyncio.all_tasks()
    await until_renewed(FakeDatabase())
    assert asyncio.all_tasks() == before
