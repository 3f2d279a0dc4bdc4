from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from gateway.staging import Staging, StagingFull, StagingMissing
from schemas.ids import UploadId
from schemas.settings import GIB, MIB, StagingSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

MOMENT = timedelta(milliseconds=50)
UPLOAD_ID = UploadId(uuid4())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Staging]:
    staging = Staging(StagingSettings(staging_dir=tmp_path), reserve_bytes=0)
    yield staging
    staging.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Staging]:
    """The same directory, as another gateway sees it."""
    staging = Staging(StagingSettings(staging_dir=tmp_path), reserve_bytes=0)
    yield staging
    staging.close()


def ignore(_: memoryview) -> None:
    pass


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def stat_of(path: Path) -> os.stat_result:
    return path.stat()


def remove(directory: Path) -> None:
    directory.rmdir()


async def test_a_new_file_has_its_size_and_takes_no_space(staging: Staging, tmp_path: Path) -> None:
    await staging.create(UPLOAD_ID, size_bytes=10 * GIB)

    file = stat_of(tmp_path / str(UPLOAD_ID))
    assert file.st_size == 10 * GIB
    assert file.st_blocks * 512 < MIB


async def test_a_file_that_would_cut_into_the_reserve_is_refused(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    staging = Staging(StagingSettings(staging_dir=tmp_path), reserve_bytes=free)

    with pytest.raises(StagingFull):
        await staging.create(UPLOAD_ID, size_bytes=GIB)

    assert names_in(tmp_path) == []
    staging.close()


async def test_a_file_larger_than_the_file_system_allows_leaves_nothing(
    staging: Staging, tmp_path: Path
) -> None:
    with pytest.raises(StagingFull):
        await staging.create(UPLOAD_ID, size_bytes=2**62)

    assert names_in(tmp_path) == []


async def test_blocks_land_one_after_the_other_in_their_region(
    staging: Staging, tmp_path: Path
) -> None:
    await staging.create(UPLOAD_ID, size_bytes=12)
    digest = hashlib.sha256()

    async with staging.region(UPLOAD_ID, offset=4, size_bytes=4) as region:
        await region.append(memoryview(b"ab"), observe=digest.update)
        await region.append(memoryview(b"cd"), observe=digest.update)
        await region.sync()

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == b"\0\0\0\0abcd\0\0\0\0"
    assert digest.digest() == hashlib.sha256(b"abcd").digest()


async def test_no_block_reaches_into_the_next_chunk(staging: Staging, tmp_path: Path) -> None:
    await staging.create(UPLOAD_ID, size_bytes=12)

    async with staging.region(UPLOAD_ID, offset=0, size_bytes=4) as region:
        with pytest.raises(ValueError, match="next chunk"):
            await region.append(memoryview(b"abcde"), observe=ignore)

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == bytes(12)


async def test_a_region_has_one_owner_at_a_time(staging: Staging, elsewhere: Staging) -> None:
    await staging.create(UPLOAD_ID, size_bytes=12)

    async with staging.region(UPLOAD_ID, offset=0, size_bytes=4) as first:
        assert await first.lock(wait=MOMENT)
        for other in (staging, elsewhere):
            async with other.region(UPLOAD_ID, offset=0, size_bytes=4) as second:
                assert not await second.lock(wait=MOMENT)
            async with other.region(UPLOAD_ID, offset=4, size_bytes=4) as neighbour:
                assert await neighbour.lock(wait=MOMENT)
    async with elsewhere.region(UPLOAD_ID, offset=0, size_bytes=4) as third:
        assert await third.lock(wait=MOMENT)


async def test_who_waits_gets_the_region_when_it_is_free(staging: Staging) -> None:
    await staging.create(UPLOAD_ID, size_bytes=4)

    async with staging.region(UPLOAD_ID, offset=0, size_bytes=4) as second:
        async with staging.region(UPLOAD_ID, offset=0, size_bytes=4) as first:
            assert await first.lock(wait=MOMENT)
            waiting = asyncio.create_task(second.lock(wait=timedelta(seconds=20)))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        assert await waiting


async def test_a_missing_file_is_told(staging: Staging) -> None:
    with pytest.raises(StagingMissing):
        async with staging.region(UPLOAD_ID, offset=0, size_bytes=4):
            pass


async def test_removing_what_is_not_there_is_no_error(staging: Staging, tmp_path: Path) -> None:
    await staging.create(UPLOAD_ID, size_bytes=4)
    await staging.remove(UPLOAD_ID)
    await staging.remove(UPLOAD_ID)

    assert names_in(tmp_path) == []


async def test_a_cancelled_request_waits_for_the_block_its_thread_still_writes(
    staging: Staging,
) -> None:
    await staging.create(UPLOAD_ID, size_bytes=4)
    began, may_go_on, order = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def slow(_: memoryview) -> None:
        loop.call_soon_threadsafe(began.set)
        may_go_on.wait(10)
        order.append("written")

    async def request() -> None:
        try:
            async with staging.region(UPLOAD_ID, offset=0, size_bytes=4) as region:
                await region.append(memoryview(b"abcd"), observe=slow)
        finally:
            order.append("closed")

    running = asyncio.create_task(request())
    await began.wait()
    running.cancel()
    await asyncio.sleep(0.05)
    assert order == []
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert order == ["written", "closed"]


async def test_a_directory_that_is_gone_is_not_writable(staging: Staging, tmp_path: Path) -> None:
    assert await staging.is_writable()
    remove(tmp_path)
    assert not await staging.is_writable()
