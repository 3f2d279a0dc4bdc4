"""Staging in a directory: one sparse file per upload.

A chunk has a fixed place in the file, so chunks may arrive in any order and
from several gateways that share the directory.
"""

import asyncio
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from gateway.staging.errors import StagingFull, StagingMissing
from gateway.staging.port import StagedUpload, Watch
from gateway.staging.serial_executor import Lane, Threads, until_done
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from schemas.settings import STAGING_MARKER

_SHORTEST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5

_libc: Final = ctypes.CDLL(None)
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h
_WRITEBACK_BYTES_MIN: Final = 128 * 1024
_WRITEBACK_BYTES_MAX: Final = 1024 * 1024
_WRITEBACKS_MIN: Final = 4
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# struct flock of Linux on 64 bits: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks).
_FLOCK: Final = struct.Struct("hhqqi4x")


class DirectoryRegion:
    """A chunk's place in its upload's file, open for one request.

    The lock is an open-file-description lock (fcntl(2), ``F_OFD_SETLK``): it
    holds against other requests and other processes on the same file system,
    and the kernel drops it when the file is closed or the process dies.
    """

    def __init__(
        self,
        threads: Threads,
        path: Path,
        *,
        offset: int,
        size_bytes: int,
        reserve_bytes: int,
    ) -> None:
        self._lane = Lane(threads)
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._descriptor: int | None = None
        self._offset = offset
        self._size_bytes = size_bytes
        # Most of a small chunk too is on its way to disk when its last block is written.
        self._writeback_bytes = min(
            max(size_bytes // _WRITEBACKS_MIN, _WRITEBACK_BYTES_MIN), _WRITEBACK_BYTES_MAX
        )
        self._written = 0
        self._handed_to_disk = 0
        self._is_locked = False

    async def lock(self, *, wait: timedelta) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait.total_seconds()
        pause = _SHORTEST_PAUSE
        while not (self._is_locked or await self._lane.run(self._try_lock)):
            if loop.time() + pause > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def append(self, block: memoryview, *, watch: Watch) -> asyncio.Future[None]:
        return self._lane.ask(self._append, block, watch)

    async def complete(self, block: memoryview, *, watch: Watch) -> bytes:
        return await self._lane.run(self._complete, block, watch)

    async def discard(self) -> None:
        """Leave the bytes: without a row they do not count, and the next request writes over them."""

    async def begin(self) -> None:
        """Open the file and try to lock the place, in one go."""
        await self._lane.run(self._open)

    def end(self) -> asyncio.Future[None]:
        """Close the file once no thread writes to it any more: its number may be another's then."""
        return self._lane.end(self._close)

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        self._try_lock()

    def _close(self) -> None:
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        # What counts is synced already, and what is not synced does not count.
        with suppress(OSError):
            os.close(descriptor)

    @property
    def _file(self) -> int:
        if self._descriptor is None:
            raise RuntimeError("the region is not open")
        return self._descriptor

    def _try_lock(self) -> bool:
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._offset, self._size_bytes, 0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, wanted)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, by file system
            return False
        self._is_locked = True
        return True

    def _append(self, block: memoryview, watch: Watch) -> None:
        # One after the other: a thread of its own for the digest costs more than it saves,
        # beside the one that reads the next block from the network meanwhile.
        watch.update(block)
        self._write(block)

    def _complete(self, block: memoryview, watch: Watch) -> bytes:
        watch.update(block)
        sha256 = watch.verify()
        self._write(block)
        with _full_disk_told():
            os.fdatasync(self._file)
        return sha256

    def _write(self, block: memoryview) -> None:
        if not self._is_locked:
            raise RuntimeError("a region is written to only by who has locked it")
        if self._written + len(block) > self._size_bytes:
            raise ValueError("a block reaches into the next chunk's region")
        if self._written == 0:
            # When it was created the files of other uploads, which are sparse, took no space yet.
            _check_room(os.fstatvfs(self._file), self._size_bytes, reserve=self._reserve_bytes)
        with _full_disk_told():
            while block:
                count = os.pwrite(self._file, block, self._offset + self._written)
                self._written += count
                block = block[count:]
        self._begin_writeback()

    def _begin_writeback(self) -> None:
        """Have what is written so far go to disk while the rest still comes (sync_file_range(2)).

        A hint, whose outcome does not matter: without it the sync at the end takes longer.
        """
        if self._written - self._handed_to_disk >= self._writeback_bytes:
            _libc.sync_file_range(
                self._file,
                ctypes.c_int64(self._offset + self._handed_to_disk),
                ctypes.c_int64(self._written - self._handed_to_disk),
                _SYNC_FILE_RANGE_WRITE,
            )
            self._handed_to_disk = self._written


class DirectoryArea:
    """The staging directory, and the threads that work on it."""

    kind = StagingKind.DIRECTORY

    def __init__(self, directory: Path, *, reserve_bytes: int) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._threads = Threads("staging")

    async def prepare(self) -> None:
        """Make the directory, and mark it: who finds no mark knows the volume is not mounted."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / STAGING_MARKER).touch()

    async def create(self, upload_id: UploadId, *, tenant_id: TenantId, size_bytes: int) -> None:  # noqa: ARG002  # the port's signature
        """Make the upload's file, at its full size and without using space for it yet.

        Raises:
            StagingFull: the file would cut into the reserve.
        """
        await self._threads.run(self._create, self._path(upload_id), size_bytes)

    @asynccontextmanager
    async def region(
        self,
        upload: StagedUpload,
        *,
        index: int,  # noqa: ARG002  # the port's signature
        offset: int,
        size_bytes: int,
    ) -> AsyncIterator[DirectoryRegion]:
        """Open a chunk's place in the file and try to lock it; closing it releases its lock.

        Raises:
            StagingMissing: the upload has no file.
        """
        region = DirectoryRegion(
            self._threads,
            self._path(upload.id),
            offset=offset,
            size_bytes=size_bytes,
            reserve_bytes=self._reserve_bytes,
        )
        try:
            await region.begin()
        except FileNotFoundError as error:
            raise StagingMissing(upload.id) from error
        except BaseException:
            # Who was cancelled while the file was opened has an open file none the less.
            await until_done([region.end()])
            raise
        try:
            yield region
        except BaseException:
            # Who tries again at once shall not find the place locked.
            await until_done([region.end()])
            raise
        # The answer does not wait for it.
        region.end()

    async def remove(self, upload_id: UploadId, *, tenant_id: TenantId) -> None:  # noqa: ARG002  # the port's signature
        """Delete the upload's file; that there is none is what was wanted."""
        path = self._path(upload_id)
        await self._threads.run(lambda: path.unlink(missing_ok=True))

    async def is_writable(self) -> bool:
        return await self._threads.run(os.access, self._directory, os.W_OK | os.X_OK)

    def close(self) -> None:
        self._threads.close()

    def _path(self, upload_id: UploadId) -> Path:
        return self._directory / str(upload_id)

    def _create(self, path: Path, size_bytes: int) -> None:
        _check_room(os.statvfs(self._directory), size_bytes, reserve=self._reserve_bytes)
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


def _check_room(disk: os.statvfs_result, size_bytes: int, *, reserve: int) -> None:
    if disk.f_bavail * disk.f_frsize - size_bytes < reserve:
        raise StagingFull


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
