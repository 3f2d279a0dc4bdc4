import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest
from sqlalchemy import Select

from gateway.http import security
from gateway.http.security import ApiKeyCache, Caller, Unauthenticated
from schemas.ids import ApiKeyId, TenantId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.db import Database

HASH = security.hash_of("wb_a")


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def a_caller() -> Caller:
    return Caller(
        tenant_id=TenantId(uuid4()), key_id=ApiKeyId(uuid4()), scopes=frozenset({"uploads:read"})
    )


def test_keys_are_never_alike_and_carry_256_bits() -> None:
    keys = {security.new_key() for _ in range(1000)}

    assert len(keys) == 1000
    assert all(key.startswith("wb_") and len(key) == len("wb_") + 43 for key in keys)


@pytest.mark.parametrize("header", ["Bearer wb_abc", "bearer wb_abc", "BEARER  wb_abc "])
def test_a_bearer_key_is_found(header: str) -> None:
    assert security.bearer(header) == "wb_abc"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic d2I6",
        "wb_abc",
        "Bearer " + "k" * 300,
        "Bearer schlüssel",
    ],
)
def test_anything_else_is_no_key(header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        security.bearer(header)


def test_a_key_is_not_told_in_an_error() -> None:
    with pytest.raises(Unauthenticated) as raised:
        security.bearer("Token wb_hunter2")

    assert "hunter2" not in str(raised.value)


def test_a_caller_is_believed_in_for_so_long_and_no_longer() -> None:
    clock, caller = Clock(), a_caller()
    known = ApiKeyCache(believed_for=timedelta(seconds=5), seconds=clock)
    known.remember(caller, key_hash=HASH, read_at=clock())

    clock.seconds += 4.999
    assert known.find(HASH) == caller
    clock.seconds += 0.001
    assert known.find(HASH) is None


def test_being_asked_for_does_not_make_a_caller_believed_longer() -> None:
    clock = Clock()
    known = ApiKeyCache(believed_for=timedelta(seconds=5), seconds=clock)
    known.remember(a_caller(), key_hash=HASH, read_at=clock())

    for _ in range(5):
        clock.seconds += 1
        known.find(HASH)

    assert known.find(HASH) is None


def test_the_time_of_belief_begins_before_the_database_is_asked() -> None:
    clock = Clock()
    known = ApiKeyCache(believed_for=timedelta(seconds=5), seconds=clock)
    asked_at = clock()
    clock.seconds += 4  # a slow database; the key may have been revoked meanwhile

    known.remember(a_caller(), key_hash=HASH, read_at=asked_at)

    clock.seconds += 1
    assert known.find(HASH) is None


def test_only_so_many_callers_are_remembered() -> None:
    clock = Clock()
    known = ApiKeyCache(believed_for=timedelta(seconds=5), seconds=clock, most=2)
    hashes = [security.hash_of(f"wb_{number}") for number in range(3)]
    for key_hash in hashes:
        known.remember(a_caller(), key_hash=key_hash, read_at=clock())

    assert [known.find(key_hash) is not None for key_hash in hashes] == [False, True, True]


def test_another_key_is_another_caller() -> None:
    clock = Clock()
    known = ApiKeyCache(believed_for=timedelta(seconds=5), seconds=clock)
    known.remember(a_caller(), key_hash=HASH, read_at=clock())

    assert known.find(security.hash_of("wb_b")) is None


class Keys:
    """Stands for the database: knows one key, or none, and answers when it is told to."""

    def __init__(self, caller: Caller | None) -> None:
        self.asked = 0
        self.is_asked = asyncio.Event()
        self.answers = asyncio.Event()
        self._caller = caller

    @asynccontextmanager
    async def transaction(self) -> "AsyncIterator[Keys]":
        yield self

    async def execute(self, _: Select[Any]) -> "Keys":
        self.asked += 1
        self.is_asked.set()
        await self.answers.wait()
        return self

    def one_or_none(self) -> SimpleNamespace | None:
        if self._caller is None:
            return None
        return SimpleNamespace(
            id=self._caller.key_id,
            tenant_id=self._caller.tenant_id,
            scopes=list(self._caller.scopes),
            key_hash=HASH,
        )


async def ask_at_once(known: ApiKeyCache, keys: Keys) -> list[asyncio.Task[Caller]]:
    database = cast("Database", keys)
    asking = [asyncio.create_task(known.caller_of(database, key="wb_a")) for _ in range(100)]
    await keys.is_asked.wait()
    return asking


@pytest.mark.anyio
async def test_a_hundred_requests_at_once_look_for_their_key_once() -> None:
    caller = a_caller()
    known, keys = ApiKeyCache(believed_for=timedelta(0), seconds=Clock()), Keys(caller)
    first, *others = await ask_at_once(known, keys)

    first.cancel()
    keys.answers.set()

    assert await asyncio.gather(*others) == [caller] * 99
    assert keys.asked == 1
    await known.caller_of(cast("Database", keys), key="wb_a")
    assert keys.asked == 2


@pytest.mark.anyio
async def test_a_key_that_was_not_found_is_looked_for_again() -> None:
    known, keys = ApiKeyCache(believed_for=timedelta(5), seconds=Clock()), Keys(None)
    asking = await ask_at_once(known, keys)
    keys.answers.set()

    outcomes = await asyncio.gather(*asking, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {Unauthenticated}
    with pytest.raises(Unauthenticated):
        await known.caller_of(cast("Database", keys), key="wb_a")
    assert keys.asked == 2
