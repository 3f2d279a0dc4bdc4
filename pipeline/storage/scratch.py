"""Temporary files for bytes that have to be sent from this machine."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import BinaryIO

from pipeline.storage.file_slice import FileSlice


class ScratchFile:
    """An unlinked temporary file; the kernel frees it when the process ends, even by SIGKILL."""

    def __init__(self, file: BinaryIO, *, on_close: Callable[["ScratchFile"], None]) -> None:
        self._file = file
        self._on_close = on_close
        self._size_bytes = 0

    def write(self, block: bytes | memoryview) -> None:
        self._size_bytes += len(block)
        while block:
            block = block[self._file.write(block) :]

    def free_bytes(self) -> int:
        """Return the free space of the disk that the file is on."""
        disk = os.fstatvfs(self._file.fileno())
        return disk.f_bavail * disk.f_frsize

    def slice(self) -> FileSlice:
        """Return the written bytes; read them before `close`."""
        # An unlinked file can only be opened through /proc.
        path = Path(f"/proc/self/fd/{self._file.fileno()}")
        return FileSlice(path, offset=0, size_bytes=self._size_bytes)

    def close(self) -> None:
        """Free the file. Idempotent."""
        self._file.close()
        self._on_close(self)


class Scratch:
    """The open scratch files of one task."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._open: set[ScratchFile] = set()
        self._lock = Lock()

    def new(self) -> ScratchFile:
        nameless = TemporaryFile(buffering=0, dir=self._directory)  # noqa: SIM115  # closed by `close`
        file = ScratchFile(nameless, on_close=self._forget)
        with self._lock:
            self._open.add(file)
        return file

    def close(self) -> None:
        with self._lock:
            left = list(self._open)
        for file in left:
            file.close()

    def _forget(self, file: ScratchFile) -> None:
        with self._lock:
            self._open.discard(file)
