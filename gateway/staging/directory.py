"""Staging in a directory: one sparse file per upload.

A chunk has a fixed range in the file, so chunks may arrive in any order and
through several gateways that share the directory.
"""

import asyncio
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from gateway.staging.errors import StagingFull
from gateway.staging.hashing import BodyHasher
from gateway.staging.port import Disk, StagedUpload
from gateway.staging.serial_executor import SerialExecutor, Threads, until_done
from schemas import staging_layout
from schemas.errors import StagingMissing
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind

_PAUSE_MIN: Final = 0.02
_PAUSE_MAX: Final = 0.5

_libc: Final = ctypes.CDLL(None)
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h
_WRITEBACK_BYTES_MIN: Final = 128 * 1024
_WRITEBACK_BYTES_MAX: Final = 1024 * 1024
_WRITEBACKS_MIN: Final = 4
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# struct flock of Linux on 64 bits: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks).
_FLOCK: Final = struct.Struct("hhqqi4x")


class DirectoryChunkWriter:
    """Writes one chunk into its range of the upload's file.

    The lock is an open-file-description lock (fcntl(2), ``F_OFD_SETLK``): it
    holds against other requests and other processes on the same file system,
    and the kernel releases it when the file is closed or the process dies.
    """

    def __init__(
        self,
        threads: Threads,
        path: Path,
        *,
        offset: int,
        size_bytes: int,
        reserve_bytes: int,
        hasher: BodyHasher,
    ) -> None:
        self._executor = SerialExecutor(threads)
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._hasher = hasher
        self._descriptor: int | None = None
        self._offset = offset
        self._size_bytes = size_bytes
        # Small enough that most of a small chunk is written back before its last block.
        self._writeback_bytes = min(
            max(size_bytes // _WRITEBACKS_MIN, _WRITEBACK_BYTES_MIN), _WRITEBACK_BYTES_MAX
        )
        self._written = 0
        self._handed_to_disk = 0
        self._is_locked = False

    async def __aenter__(self) -> Self:
        """Open the file and try to lock the range, in one call to a thread."""
        try:
            await self._executor.run(self._open)
        except FileNotFoundError as error:
            raise StagingMissing(
                f"the staged file of upload {self._path.name} is gone; create a new upload"
            ) from error
        except BaseException:
            # The thread opens the file even if the request is cancelled meanwhile.
            await until_done([self._executor.submit(self._close, even_after_failure=True)])
            raise
        return self

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        closed = self._executor.submit(self._close, even_after_failure=True)
        # After a success the answer does not wait for the close. After a failure the
        # client may retry at once, and must not find the range locked.
        if error_type is not None:
            await until_done([closed])

    async def lock(self, *, wait_max: timedelta) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_max.total_seconds()
        pause = _PAUSE_MIN
        while not (self._is_locked or await self._executor.run(self._try_lock)):
            left = deadline - loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _PAUSE_MAX)
        return True

    def append(self, block: memoryview) -> asyncio.Future[None]:
        return self._executor.submit(self._append, block)

    async def complete(self, block: memoryview, *, processed: Callable[[], None]) -> bytes:  # noqa: ARG002  # the port's signature
        return await self._executor.run(self._complete, block)

    async def discard(self) -> None:
        """Leave the bytes: without a row they do not count, and the next request overwrites them."""

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        self._try_lock()

    def _close(self) -> None:
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        # An error loses nothing: acknowledged bytes are already synced.
        with suppress(OSError):
            os.close(descriptor)

    @property
    def _file(self) -> int:
        if self._descriptor is None:
            raise RuntimeError("the file is not open")
        return self._descriptor

    def _try_lock(self) -> bool:
        request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._offset, self._size_bytes, 0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, request)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, by file system
            return False
        self._is_locked = True
        return True

    def _append(self, block: memoryview) -> None:
        # In one thread: while the event loop reads the next block from the network, a
        # second thread for the digest costs more than it saves.
        self._hasher.update(block)
        self._write(block)

    def _complete(self, block: memoryview) -> bytes:
        self._hasher.update(block)
        sha256 = self._hasher.verify()
        self._write(block)
        with _disk_full_raises_staging_full():
            os.fdatasync(self._file)
        return sha256

    def _write(self, block: memoryview) -> None:
        if not self._is_locked:
            raise RuntimeError("the range is not locked by this request")
        if self._written + len(block) > self._size_bytes:
            raise ValueError("a block reaches into the next chunk")
        if self._written == 0:
            # The check at creation did not count the files of other uploads: sparse files
            # take no space until they are written.
            _check_room(os.fstatvfs(self._file), self._size_bytes, reserve=self._reserve_bytes)
        with _disk_full_raises_staging_full():
            while block:
                count = os.pwrite(self._file, block, self._offset + self._written)
                self._written += count
                block = block[count:]
        self._begin_writeback()

    def _begin_writeback(self) -> None:
        """Start writing the bytes so far to disk while the rest arrives (sync_file_range(2)).

        The call is a hint, so its result is ignored. Without the hint the sync at the end takes
        longer.
        """
        if self._written - self._handed_to_disk >= self._writeback_bytes:
            _libc.sync_file_range(
                self._file,
                ctypes.c_int64(self._offset + self._handed_to_disk),
                ctypes.c_int64(self._written - self._handed_to_disk),
                _SYNC_FILE_RANGE_WRITE,
            )
            self._handed_to_disk = self._written


class DirectoryBackend:
    """The staging directory, and the threads that work on it."""

    kind = StagingKind.DIRECTORY

    def __init__(self, directory: Path, *, reserve_bytes: int) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._threads = Threads("staging")

    async def prepare(self) -> None:
        """Create the directory with its marker; a missing marker shows that no volume is mounted."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / staging_layout.MARKER).touch()

    async def create(self, upload_id: UploadId, *, tenant_id: TenantId, size_bytes: int) -> None:  # noqa: ARG002  # the port's signature
        """Create the upload's sparse file at its full size.

        Raises:
            StagingFull: the file would use the reserve.
        """
        await self._threads.run(self._create, self._path(upload_id), size_bytes)

    def open_chunk(
        self,
        upload: StagedUpload,
        *,
        index: int,  # noqa: ARG002  # the port's signature
        offset: int,
        size_bytes: int,
        hasher: BodyHasher,
    ) -> DirectoryChunkWriter:
        return DirectoryChunkWriter(
            self._threads,
            self._path(upload.id),
            offset=offset,
            size_bytes=size_bytes,
            reserve_bytes=self._reserve_bytes,
            hasher=hasher,
        )

    async def remove(self, upload_id: UploadId, *, tenant_id: TenantId) -> None:  # noqa: ARG002  # the port's signature
        """Delete the upload's file if it exists."""
        path = self._path(upload_id)
        await self._threads.run(lambda: path.unlink(missing_ok=True))

    async def problem(self) -> str | None:
        return await self._threads.run(self._problem)

    async def disk(self) -> Disk:
        return await self._threads.run(self._disk)

    def close(self) -> None:
        self._threads.close()

    def _problem(self) -> str | None:
        try:
            (self._directory / staging_layout.MARKER).stat()
        except FileNotFoundError:
            return (
                f"not mounted: STAGING_DIR has no {staging_layout.MARKER}; is its volume mounted?"
            )
        except OSError as error:
            return f"unreadable: {error.strerror}"
        if os.access(self._directory, os.W_OK | os.X_OK):
            return None
        return "not writable: this process may not write to STAGING_DIR, or its disk is read-only"

    def _disk(self) -> Disk:
        disk = os.statvfs(self._directory)
        # As `df`: blocks that only root may use count as neither used nor free.
        used_blocks = disk.f_blocks - disk.f_bfree
        return Disk(
            size_bytes=(used_blocks + disk.f_bavail) * disk.f_frsize,
            free_bytes=disk.f_bavail * disk.f_frsize,
            reserve_bytes=self._reserve_bytes,
        )

    def _path(self, upload_id: UploadId) -> Path:
        return staging_layout.file_of(self._directory, upload_id)

    def _create(self, path: Path, size_bytes: int) -> None:
        _check_room(os.statvfs(self._directory), size_bytes, reserve=self._reserve_bytes)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        try:
            with _disk_full_raises_staging_full():
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
    """Make the name of a new file durable; an fsync of the file syncs only its content."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_full_raises_staging_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise StagingFull from error
        raise
