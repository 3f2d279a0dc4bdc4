import asyncio
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from gateway.staging import (
    BodyHasher,
    ChunkDigestMismatch,
    ExpectedDigest,
    StagedUpload,
    StagingFull,
)
from gateway.staging.directory import DirectoryBackend, DirectoryChunkWriter
from schemas import staging_layout
from schemas.errors import StagingMissing
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from schemas.settings import GIB, MIB

pytestmark = pytest.mark.anyio

MOMENT = timedelta(milliseconds=50)
LONG = timedelta(seconds=20)
TENANT_ID = TenantId(uuid4())
UPLOAD_ID = UploadId(uuid4())
UPLOAD = StagedUpload(
    id=UPLOAD_ID, tenant_id=TENANT_ID, size=12, chunk_size=4, kind=StagingKind.DIRECTORY
)


class HasherWithCallback(BodyHasher):
    def __init__(self, callback: Callable[[], None]) -> None:
        super().__init__()
        self._callback = callback

    def update(self, block: memoryview) -> None:
        self._callback()
        super().update(block)


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[DirectoryBackend]:
    staging = DirectoryBackend(tmp_path, reserve_bytes=0)
    yield staging
    staging.close()


@pytest.fixture
def other_gateway(tmp_path: Path) -> Iterator[DirectoryBackend]:
    """The same directory, used by another gateway."""
    staging = DirectoryBackend(tmp_path, reserve_bytes=0)
    yield staging
    staging.close()


def open_chunk(
    staging: DirectoryBackend,
    *,
    offset: int,
    size_bytes: int,
    hasher: BodyHasher | None = None,
) -> DirectoryChunkWriter:
    return staging.open_chunk(
        UPLOAD,
        index=offset // 4,
        offset=offset,
        size_bytes=size_bytes,
        hasher=hasher or BodyHasher(),
    )


async def make(staging: DirectoryBackend, *, size_bytes: int) -> None:
    await staging.create(UPLOAD_ID, tenant_id=TENANT_ID, size_bytes=size_bytes)


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def stat_of(path: Path) -> os.stat_result:
    return path.stat()


def remove(directory: Path) -> None:
    directory.rmdir()


async def test_a_new_file_has_its_size_and_takes_no_space(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    await make(staging, size_bytes=10 * GIB)

    file = stat_of(tmp_path / str(UPLOAD_ID))
    assert file.st_size == 10 * GIB
    assert file.st_blocks * 512 < MIB


async def test_a_file_that_would_use_the_reserve_is_refused(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    staging = DirectoryBackend(tmp_path, reserve_bytes=free)

    with pytest.raises(StagingFull):
        await make(staging, size_bytes=GIB)

    assert names_in(tmp_path) == []
    staging.close()


async def test_a_chunk_that_would_use_the_reserve_is_refused(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    await make(staging, size_bytes=12)
    disk = os.statvfs(tmp_path)
    full = DirectoryBackend(tmp_path, reserve_bytes=disk.f_bavail * disk.f_frsize + GIB)

    async with open_chunk(full, offset=4, size_bytes=4) as writer:
        with pytest.raises(StagingFull):
            await writer.append(memoryview(b"ab"))

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == bytes(12)
    assert stat_of(tmp_path / str(UPLOAD_ID)).st_blocks == 0
    full.close()


async def test_a_file_larger_than_the_file_system_allows_leaves_nothing(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    with pytest.raises(StagingFull):
        await make(staging, size_bytes=2**62)

    assert names_in(tmp_path) == []


async def test_blocks_are_written_one_after_another_from_the_offset_of_the_chunk(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    await make(staging, size_bytes=12)
    async with open_chunk(staging, offset=4, size_bytes=4) as writer:
        await writer.append(memoryview(b"ab"))
        sha256 = await writer.complete(memoryview(b"cd"), processed=lambda: None)

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == b"\0\0\0\0abcd\0\0\0\0"
    assert sha256 == hashlib.sha256(b"abcd").digest()


async def test_a_body_with_a_wrong_digest_is_not_completed(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    await make(staging, size_bytes=12)

    other = ExpectedDigest(
        field="Content-Digest", algorithm="sha-256", digest=hashlib.sha256(b"other").digest()
    )

    async with open_chunk(staging, offset=0, size_bytes=4, hasher=BodyHasher([other])) as writer:
        with pytest.raises(ChunkDigestMismatch):
            await writer.complete(memoryview(b"abcd"), processed=lambda: None)

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == bytes(12)


async def test_a_block_never_reaches_into_the_next_chunk(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    await make(staging, size_bytes=12)

    async with open_chunk(staging, offset=0, size_bytes=4) as writer:
        with pytest.raises(ValueError, match="next chunk"):
            await writer.append(memoryview(b"abcde"))

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == bytes(12)


async def test_a_chunk_is_written_only_under_its_lock(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    await make(staging, size_bytes=12)

    async with (
        open_chunk(staging, offset=0, size_bytes=4),
        open_chunk(staging, offset=0, size_bytes=4) as second,
    ):
        with pytest.raises(RuntimeError, match="locked"):
            await second.append(memoryview(b"abcd"))

    assert (tmp_path / str(UPLOAD_ID)).read_bytes() == bytes(12)


async def test_one_request_at_a_time_holds_the_lock_of_a_chunk(
    staging: DirectoryBackend, other_gateway: DirectoryBackend
) -> None:
    await make(staging, size_bytes=12)

    async with open_chunk(staging, offset=0, size_bytes=4) as first:
        assert await first.lock(wait_max=MOMENT)
        for other in (staging, other_gateway):
            async with open_chunk(other, offset=0, size_bytes=4) as second:
                assert not await second.lock(wait_max=MOMENT)
            async with open_chunk(other, offset=4, size_bytes=4) as next_chunk:
                assert await next_chunk.lock(wait_max=LONG)
    # After a success the lock is released a moment later.
    async with open_chunk(other_gateway, offset=0, size_bytes=4) as third:
        assert await third.lock(wait_max=LONG)


async def test_a_waiting_request_gets_the_lock_once_it_is_free(staging: DirectoryBackend) -> None:
    await make(staging, size_bytes=4)

    async with AsyncExitStack() as releasing_first:
        await releasing_first.enter_async_context(open_chunk(staging, offset=0, size_bytes=4))
        async with open_chunk(staging, offset=0, size_bytes=4) as second:
            waiting = asyncio.create_task(second.lock(wait_max=LONG))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await releasing_first.aclose()
            assert await waiting


async def test_a_request_cancelled_while_it_opens_its_chunk_leaves_no_file_open(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    await make(staging, size_bytes=4)
    opened = tmp_path / str(UPLOAD_ID)

    async def request() -> None:
        async with open_chunk(staging, offset=0, size_bytes=4):
            await asyncio.sleep(60)

    for steps in range(6):
        running = asyncio.create_task(request())
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert str(opened) not in [file.path for file in psutil.Process().open_files()]


async def test_a_missing_file_is_an_error(staging: DirectoryBackend) -> None:
    with pytest.raises(StagingMissing):
        async with open_chunk(staging, offset=0, size_bytes=4):
            pass


async def test_remove_may_be_repeated(staging: DirectoryBackend, tmp_path: Path) -> None:
    await make(staging, size_bytes=4)
    await staging.remove(UPLOAD_ID, tenant_id=TENANT_ID)
    await staging.remove(UPLOAD_ID, tenant_id=TENANT_ID)

    assert names_in(tmp_path) == []


async def test_a_cancelled_request_waits_for_the_block_that_its_thread_writes(
    staging: DirectoryBackend,
) -> None:
    await make(staging, size_bytes=4)
    began, may_continue, order = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def slow() -> None:
        loop.call_soon_threadsafe(began.set)
        may_continue.wait(10)
        order.append("written")

    async def request() -> None:
        try:
            async with open_chunk(
                staging, offset=0, size_bytes=4, hasher=HasherWithCallback(slow)
            ) as writer:
                await writer.append(memoryview(b"abcd"))
        finally:
            order.append("closed")

    running = asyncio.create_task(request())
    await began.wait()
    for _ in range(3):  # some servers cancel repeatedly until the request has ended
        running.cancel()
        await asyncio.sleep(0.05)
    assert order == []
    may_continue.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert order == ["written", "closed"]


async def test_the_disk_of_the_directory_is_measured(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    expected = shutil.disk_usage(tmp_path)

    disk = await staging.disk()

    assert disk.size_bytes == expected.used + expected.free
    assert disk.used_percent in range(101)


async def test_a_directory_without_its_marker_is_not_mounted(
    staging: DirectoryBackend, tmp_path: Path
) -> None:
    await staging.prepare()
    assert await staging.problem() is None
    (tmp_path / staging_layout.MARKER).unlink()
    problem = await staging.problem()
    assert problem is not None
    assert problem.startswith("not mounted: ")
