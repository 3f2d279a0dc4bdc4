import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from gateway.staging import StagedUpload, StagingFull, StagingMissing
from gateway.staging.directory import DirectoryArea, DirectoryRegion
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from schemas.settings import GIB, MIB

pytestmark = pytest.mark.anyio

MOMENT = timedelta(milliseconds=50)
AGES = timedelta(seconds=20)
TENANT_ID = TenantId(uuid4())
UPLOAD_ID = UploadId(uuid4())
UPLOAD = StagedUpload(
    id=UPLOAD_ID, tenant_id=TENANT_ID, size=12, chunk_size=4, kind=StagingKind.DIRECTORY
)
NOTHING = memoryview(b"")


class Watching:
    """Sees the bytes, and may have something to do or to say."""

    def __init__(
        self, *, do: Callable[[], None] = lambda: None, refusal: Exception | None = None
    ) -> None:
        self._do = do
        self._refusal = refusal
        self._digest = hashlib.sha256()

    def update(self, block: memoryview) -> None:
        self._do()
        self._digest.update(block)

    def verify(self) -> bytes:
        if self._refusal is not None:
            raise self._refusal
        return self._digest.digest()


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[DirectoryArea]:
    staging = DirectoryArea(tmp_path, reserve_bytes=0)
    yield staging
    staging.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[DirectoryArea]:
    """The same directory, as another gateway sees it."""
    staging = DirectoryArea(tmp_path, reserve_bytes=0)
    yield staging
    staging.close()


def place(
    staging: DirectoryArea, *, offset: int, size_bytes: int
) -> AbstractAsyncContextManager[DirectoryRegion]:
    return staging.region(UPLOAD, index=offset // 4, offset=offset, size_bytes=size_bytes)


async def make(staging: DirectoryArea, *, size_bytes: int) -> None:
    await staging.create(UPLOAD_ID, tenant_id=TENANT_ID, size_bytes=size_bytes)


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def stat_of(path: Path) -> os.stat_result:
    return path.stat()


def remove(directory: Path) -> None:
    directory.rmdir()


async def test_a_new_file_has_its_size_and_takes_no_space(
    staging: DirectoryArea, tmp_path: Path
) -> None:
    await make(staging, size_bytes=10 * GIB)

    file = stat_of(tmp_path / str(UPLOAD_ID))
    assert file.st_size == 10 * GIB
    assert file.st_blocks * 512 < MIB


async def test_a_file_that_would_cut_into_the_reserve_is_refused(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    staging = DirectoryArea(tmp_path, reserve_bytes=free)

    with pytest.raises(StagingFull):
        await make(staging, size_bytes=GIB)

    assert names_in(tmp_path) == []
    staging.close()


async def test_a_chunk_that_would_cut_into_the_reserve_is_not_kept(
    staging: DirectoryArea, tmp_path: Path
) -> None:
    await make(staging, size_bytes=12)
    disk = os.statvfs(tmp_path)
    careful = DirectoryArea(tmp_path, reserve_bytes=disk.f_bavail * disk.f_frsize + GIB)

    async with place(careful, offset=4, size_bytes=4) as region:
        with pytest.raises(StagingFull):
            await region.append(memoryview(b"ab"), watch=Watching())

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == bytes(12)
    assert stat_of(tmp_path / str(UPLOAD_ID)).st_blocks == 0
    careful.close()


async def test_a_file_larger_than_the_file_system_allows_leaves_nothing(
    staging: DirectoryArea, tmp_path: Path
) -> None:
    with pytest.raises(StagingFull):
        await make(staging, size_bytes=2**62)

    assert names_in(tmp_path) == []


async def test_blocks_land_one_after_the_other_in_their_region(
    staging: DirectoryArea, tmp_path: Path
) -> None:
    await make(staging, size_bytes=12)
    watch = Watching()

    async with place(staging, offset=4, size_bytes=4) as region:
        await region.append(memoryview(b"ab"), watch=watch)
        sha256 = await region.complete(memoryview(b"cd"), watch=watch)

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == b"\0\0\0\0abcd\0\0\0\0"
    assert sha256 == hashlib.sha256(b"abcd").digest()


async def test_what_is_not_what_was_promised_is_not_completed(
    staging: DirectoryArea, tmp_path: Path
) -> None:
    await make(staging, size_bytes=12)

    async with place(staging, offset=0, size_bytes=4) as region:
        with pytest.raises(LookupError):
            await region.complete(memoryview(b"abcd"), watch=Watching(refusal=LookupError()))

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == bytes(12)


async def test_no_block_reaches_into_the_next_chunk(staging: DirectoryArea, tmp_path: Path) -> None:
    await make(staging, size_bytes=12)

    async with place(staging, offset=0, size_bytes=4) as region:
        with pytest.raises(ValueError, match="next chunk"):
            await region.append(memoryview(b"abcde"), watch=Watching())

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == bytes(12)


async def test_nobody_writes_without_the_lock(staging: DirectoryArea, tmp_path: Path) -> None:
    await make(staging, size_bytes=12)

    async with (
        place(staging, offset=0, size_bytes=4),
        place(staging, offset=0, size_bytes=4) as second,
    ):
        with pytest.raises(RuntimeError, match="locked"):
            await second.append(memoryview(b"abcd"), watch=Watching())

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == bytes(12)


async def test_a_region_has_one_owner_at_a_time(
    staging: DirectoryArea, elsewhere: DirectoryArea
) -> None:
    await make(staging, size_bytes=12)

    async with place(staging, offset=0, size_bytes=4) as first:
        assert await first.lock(wait=MOMENT)
        for other in (staging, elsewhere):
            async with place(other, offset=0, size_bytes=4) as second:
                assert not await second.lock(wait=MOMENT)
            async with place(other, offset=4, size_bytes=4) as neighbour:
                assert await neighbour.lock(wait=AGES)
    # Whoever ends well lets go a moment later.
    async with place(elsewhere, offset=0, size_bytes=4) as third:
        assert await third.lock(wait=AGES)


async def test_who_waits_gets_the_region_when_it_is_free(staging: DirectoryArea) -> None:
    await make(staging, size_bytes=4)

    async with AsyncExitStack() as leaving_first:
        await leaving_first.enter_async_context(place(staging, offset=0, size_bytes=4))
        async with place(staging, offset=0, size_bytes=4) as second:
            waiting = asyncio.create_task(second.lock(wait=AGES))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await leaving_first.aclose()
            assert await waiting


async def test_a_request_cancelled_while_it_opens_its_region_leaves_no_file_open(
    staging: DirectoryArea, tmp_path: Path
) -> None:
    await make(staging, size_bytes=4)
    opened = tmp_path / str(UPLOAD_ID)

    async def request() -> None:
        async with place(staging, offset=0, size_bytes=4):
            await asyncio.sleep(60)

    for steps in range(6):
        running = asyncio.create_task(request())
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert str(opened) not in [file.path for file in psutil.Process().open_files()]


async def test_a_missing_file_is_told(staging: DirectoryArea) -> None:
    with pytest.raises(StagingMissing):
        async with place(staging, offset=0, size_bytes=4):
            pass


async def test_removing_what_is_not_there_is_no_error(
    staging: DirectoryArea, tmp_path: Path
) -> None:
    await make(staging, size_bytes=4)
    await staging.remove(UPLOAD_ID, tenant_id=TENANT_ID)
    await staging.remove(UPLOAD_ID, tenant_id=TENANT_ID)

    assert names_in(tmp_path) == []


async def test_a_cancelled_request_waits_for_the_block_its_thread_still_writes(
    staging: DirectoryArea,
) -> None:
    await make(staging, size_bytes=4)
    began, may_go_on, order = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def slow() -> None:
        loop.call_soon_threadsafe(began.set)
        may_go_on.wait(10)
        order.append("written")

    async def request() -> None:
        try:
            async with place(staging, offset=0, size_bytes=4) as region:
                await region.append(memoryview(b"abcd"), watch=Watching(do=slow))
        finally:
            order.append("closed")

    running = asyncio.create_task(request())
    await began.wait()
    for _ in range(3):  # some servers cancel again and again until the request has ended
        running.cancel()
        await asyncio.sleep(0.05)
    assert order == []
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert order == ["written", "closed"]


async def test_a_directory_that_is_gone_is_not_writable(
    staging: DirectoryArea, tmp_path: Path
) -> None:
    assert await staging.is_writable()
    remove(tmp_path)
    assert not await staging.is_writable()
