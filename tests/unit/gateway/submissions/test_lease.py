"""A form's upload is kept from expiring, also across a database that is away for a moment."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import pytest
from sqlalchemy import Update
from sqlalchemy.exc import OperationalError

from gateway.uploads.oneshot import lease
from schemas.ids import UploadId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.db import Database

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(milliseconds=30)


class Renewals:
    """Stands for the database: notes until when an upload was to live, after some failures."""

    def __init__(self, *, failures: int = 0) -> None:
        self.ends: list[datetime] = []
        self.came = asyncio.Event()
        self._failures = failures

    @asynccontextmanager
    async def transaction(self) -> "AsyncIterator[Renewals]":
        yield self

    async def execute(self, statement: Update) -> None:
        if self._failures:
            self._failures -= 1
            raise OperationalError("UPDATE", {}, Exception("away"))
        self.ends.append(statement.compile().params["expires_at"])
        self.came.set()


async def first_end(renewals: Renewals, *, longest: timedelta) -> datetime:
    kept = lease.renewed(
        cast("Database", renewals),
        UploadId(uuid4()),
        lease=LEASE,
        longest=longest,
        clock=lambda: START,
    )
    async with kept, asyncio.timeout(20):
        await renewals.came.wait()
    return renewals.ends[0]


async def test_an_upload_lives_a_lease_longer_from_each_renewal() -> None:
    assert await first_end(Renewals(), longest=timedelta(days=1)) == START + LEASE


async def test_an_upload_lives_no_longer_than_it_may_in_all() -> None:
    assert await first_end(Renewals(), longest=LEASE / 2) == START + LEASE / 2


async def test_a_renewal_that_fails_is_followed_by_the_next() -> None:
    assert await first_end(Renewals(failures=2), longest=timedelta(days=1)) == START + LEASE


async def test_nothing_is_renewed_after_the_end() -> None:
    before = asyncio.all_tasks()
    await first_end(Renewals(), longest=timedelta(days=1))
    assert asyncio.all_tasks() == before
