import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest
from sqlalchemy import Select

from gateway.http import security
from gateway.http.security import ApiKeyCache, Caller, KeyEnded, Unauthenticated, ValidKey
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


def test_keys_are_unique_and_have_256_bits() -> None:
    keys = {security.new_key() for _ in range(1000)}

    assert len(keys) == 1000
    assert all(key.startswith("wb_") and len(key) == len("wb_") + 43 for key in keys)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wb_abc",
        "bearer wb_abc",
        "BEARER  wb_abc ",
        "Bearer wb_abc\t",
        "\t Bearer   wb_abc \t ",
    ],
)
def test_a_bearer_key_is_found(header: str) -> None:
    assert security.bearer(header) == "wb_abc"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer \t",
        "Bearerwb_abc",
        "Basic d2I6",
        "wb_abc",
        "Bearer " + "k" * 300,
        "Bearer schlüssel",
    ],
)
def test_a_header_without_a_valid_bearer_key_is_refused(header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        security.bearer(header)


def test_an_error_does_not_repeat_the_key() -> None:
    with pytest.raises(Unauthenticated) as raised:
        security.bearer("Token wb_hunter2")

    assert "hunter2" not in str(raised.value)


def test_a_cached_caller_expires() -> None:
    clock, caller = Clock(), a_caller()
    cache = ApiKeyCache(lifetime=timedelta(seconds=5), monotonic=clock)
    cache.add(ValidKey(caller=caller), key_hash=HASH, read_at=clock())

    clock.seconds += 4.999
    assert cache.find(HASH) == caller
    clock.seconds += 0.001
    assert cache.find(HASH) is None


def test_a_caller_is_not_cached_for_longer_than_its_key_is_valid() -> None:
    clock = Clock()
    cache = ApiKeyCache(lifetime=timedelta(seconds=5), monotonic=clock)
    valid = ValidKey(caller=a_caller(), expires_in=timedelta(seconds=2))
    cache.add(valid, key_hash=HASH, read_at=clock())

    clock.seconds += 1.999
    assert cache.find(HASH) == valid.caller
    clock.seconds += 0.001
    assert cache.find(HASH) is None


def test_a_lookup_does_not_extend_the_lifetime() -> None:
    clock = Clock()
    cache = ApiKeyCache(lifetime=timedelta(seconds=5), monotonic=clock)
    cache.add(ValidKey(caller=a_caller()), key_hash=HASH, read_at=clock())

    for _ in range(5):
        clock.seconds += 1
        cache.find(HASH)

    assert cache.find(HASH) is None


def test_the_lifetime_starts_before_the_database_is_read() -> None:
    clock = Clock()
    cache = ApiKeyCache(lifetime=timedelta(seconds=5), monotonic=clock)
    read_at = clock()
    clock.seconds += 4  # a slow read: the key may be revoked meanwhile

    cache.add(ValidKey(caller=a_caller()), key_hash=HASH, read_at=read_at)

    clock.seconds += 1
    assert cache.find(HASH) is None


def test_a_full_cache_removes_the_oldest_caller() -> None:
    clock = Clock()
    cache = ApiKeyCache(lifetime=timedelta(seconds=5), monotonic=clock, size_max=2)
    hashes = [security.hash_of(f"wb_{number}") for number in range(3)]
    for key_hash in hashes:
        cache.add(ValidKey(caller=a_caller()), key_hash=key_hash, read_at=clock())

    assert [cache.find(key_hash) is not None for key_hash in hashes] == [False, True, True]


def test_a_different_key_does_not_find_the_cached_caller() -> None:
    clock = Clock()
    cache = ApiKeyCache(lifetime=timedelta(seconds=5), monotonic=clock)
    cache.add(ValidKey(caller=a_caller()), key_hash=HASH, read_at=clock())

    assert cache.find(security.hash_of("wb_b")) is None


class Keys:
    """Stands for a database with at most one key; a read ends once `answers` is set."""

    def __init__(self, caller: Caller | None, *, state: str = security.ACTIVE) -> None:
        self.reads = 0
        self.is_read = asyncio.Event()
        self.answers = asyncio.Event()
        self._caller = caller
        self._state = state

    @asynccontextmanager
    async def transaction(self) -> "AsyncIterator[Keys]":
        yield self

    async def execute(self, _: Select[Any]) -> "Keys":
        self.reads += 1
        self.is_read.set()
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
            expires_in=None,
            state=self._state,
        )


async def read_concurrently(cache: ApiKeyCache, keys: Keys) -> list[asyncio.Task[Caller]]:
    database = cast("Database", keys)
    reads = [asyncio.create_task(cache.caller_of(database, key="wb_a")) for _ in range(100)]
    await keys.is_read.wait()
    return reads


@pytest.mark.anyio
async def test_a_hundred_concurrent_requests_share_one_read() -> None:
    caller = a_caller()
    cache, keys = ApiKeyCache(lifetime=timedelta(0), monotonic=Clock()), Keys(caller)
    first, *others = await read_concurrently(cache, keys)

    first.cancel()
    keys.answers.set()

    assert await asyncio.gather(*others) == [caller] * 99
    assert keys.reads == 1
    await cache.caller_of(cast("Database", keys), key="wb_a")
    assert keys.reads == 2


@pytest.mark.anyio
async def test_an_unknown_key_is_not_cached() -> None:
    cache, keys = ApiKeyCache(lifetime=timedelta(5), monotonic=Clock()), Keys(None)
    reads = await read_concurrently(cache, keys)
    keys.answers.set()

    results = await asyncio.gather(*reads, return_exceptions=True)

    assert {type(result) for result in results} == {Unauthenticated}
    with pytest.raises(Unauthenticated):
        await cache.caller_of(cast("Database", keys), key="wb_a")
    assert keys.reads == 2


@pytest.mark.parametrize("state", ["revoked", "expired"])
@pytest.mark.anyio
async def test_an_ended_key_is_refused_like_an_unknown_key_and_not_cached(state: str) -> None:
    caller = a_caller()
    cache, keys = ApiKeyCache(lifetime=timedelta(5), monotonic=Clock()), Keys(caller, state=state)
    keys.answers.set()

    for _ in range(2):
        with pytest.raises(KeyEnded) as refused:
            await cache.caller_of(cast("Database", keys), key="wb_a")
        assert (refused.value.caller, refused.value.state) == (caller, state)
        assert str(refused.value) == str(Unauthenticated())
        assert refused.value.code == Unauthenticated.code
    assert keys.reads == 2
