"""Where received bytes lie until a worker has stored them: one sparse file per upload.

A chunk has a fixed place in the file, so chunks may arrive in any order and
from several gateways that share the directory.
"""

import asyncio
import errno
import fcntl
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from schemas.errors import DomainError, ErrorCode
from schemas.ids import UploadId
from schemas.settings import StagingSettings

# Hashing and writing release the interpreter lock; more threads than disks or cores only queue.
THREADS: Final = 16

_SHORTEST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# struct flock of Linux on 64 bits: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks).
_FLOCK: Final = struct.Struct("hhqqi4x")

Result = TypeVar("Result")


class StagingFull(DomainError):
    """The staging disk has no room; later it may."""

    code = ErrorCode.STAGING_FULL
    retryable = True

    def __init__(self) -> None:
        super().__init__("there is not enough room for this upload at the moment")


class StagingMissing(DomainError):
    """The upload's staged bytes are gone; it has to be sent again as a new upload."""

    code = ErrorCode.STAGING_MISSING

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"what was staged for upload {upload_id} is gone; create a new upload")


class Region:
    """A chunk's place in its upload's file, open for one request.

    The lock is an open-file-description lock (fcntl(2), ``F_OFD_SETLK``): it
    holds against other requests and other processes on the same file system,
    and the kernel drops it when the file is closed or the process dies.
    """

    def __init__(
        self, threads: ThreadPoolExecutor, descriptor: int, *, offset: int, size_bytes: int
    ) -> None:
        self._threads = threads
        self._descriptor = descriptor
        self._offset = offset
        self._size_bytes = size_bytes
        self._written = 0

    async def lock(self, *, wait: timedelta) -> bool:
        """Take the region for this request alone; say whether that succeeded in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait.total_seconds()
        pause = _SHORTEST_PAUSE
        while not await _in_thread(self._threads, self._try_lock):
            if loop.time() + pause > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    async def append(self, block: memoryview, *, observe: Callable[[memoryview], None]) -> None:
        """Write the next block, and show it to `observe` in the same thread.

        Raises:
            StagingFull: the disk has no room for it.
        """
        await _in_thread(self._threads, self._write, block, observe)

    async def sync(self) -> None:
        """Return once the bytes would survive a power failure.

        Raises:
            StagingFull: the disk had no room after all.
        """
        await _in_thread(self._threads, self._sync)

    def _try_lock(self) -> bool:
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._offset, self._size_bytes, 0)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, wanted)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, by file system
            return False
        return True

    def _write(self, block: memoryview, observe: Callable[[memoryview], None]) -> None:
        observe(block)
        if self._written + len(block) > self._size_bytes:
            raise ValueError("a block reaches into the next chunk's region")
        with _full_disk_told():
            while block:
                count = os.pwrite(self._descriptor, block, self._offset + self._written)
                self._written += count
                block = block[count:]

    def _sync(self) -> None:
        with _full_disk_told():
            os.fdatasync(self._descriptor)


class Staging:
    """The staging directory, and the threads that work on it."""

    def __init__(self, settings: StagingSettings, *, reserve_bytes: int) -> None:
        self._directory = settings.staging_dir
        self._reserve_bytes = reserve_bytes
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="staging")

    async def create(self, upload_id: UploadId, *, size_bytes: int) -> None:
        """Make the upload's file, at its full size and without using space for it yet.

        Raises:
            StagingFull: the file would cut into the reserve.
        """
        await _in_thread(self._threads, self._create, self._path(upload_id), size_bytes)

    @asynccontextmanager
    async def region(
        self, upload_id: UploadId, *, offset: int, size_bytes: int
    ) -> AsyncIterator[Region]:
        """Open a chunk's place in the file; closing it releases its lock.

        Raises:
            StagingMissing: the upload has no file.
        """
        try:
            descriptor = await _in_thread(
                self._threads, os.open, self._path(upload_id), os.O_WRONLY | os.O_CLOEXEC
            )
        except FileNotFoundError as error:
            raise StagingMissing(upload_id) from error
        try:
            yield Region(self._threads, descriptor, offset=offset, size_bytes=size_bytes)
        finally:
            await _in_thread(self._threads, os.close, descriptor)

    async def observe(self, block: memoryview, *, observe: Callable[[memoryview], None]) -> None:
        """Show a block that is not to be written to `observe`, off the event loop."""
        await _in_thread(self._threads, observe, block)

    async def remove(self, upload_id: UploadId) -> None:
        """Delete the upload's file; that there is none is what was wanted."""
        path = self._path(upload_id)
        await _in_thread(self._threads, lambda: path.unlink(missing_ok=True))

    async def is_writable(self) -> bool:
        return await _in_thread(self._threads, os.access, self._directory, os.W_OK | os.X_OK)

    def close(self) -> None:
        self._threads.shutdown()

    def _path(self, upload_id: UploadId) -> Path:
        return self._directory / str(upload_id)

    def _create(self, path: Path, size_bytes: int) -> None:
        disk = os.statvfs(self._directory)
        if disk.f_bavail * disk.f_frsize - size_bytes < self._reserve_bytes:
            raise StagingFull
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        try:
            with _full_disk_told():
                os.ftruncate(descriptor, size_bytes)
                os.fsync(descriptor)
                _sync_directory(self._directory)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


def _sync_directory(path: Path) -> None:
    """Make a new file's name durable; fsync of the file alone does not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _full_disk_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise StagingFull from error
        raise


async def _in_thread(
    threads: ThreadPoolExecutor, function: Callable[..., Result], *arguments: object
) -> Result:
    """Run a blocking call in one of the threads, to its end even if the caller is cancelled.

    A cancelled caller would go on to close the file while the thread still
    writes, and the thread would then write to whatever got the same number.
    """
    call = asyncio.get_running_loop().run_in_executor(threads, function, *arguments)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait([call])
        raise
