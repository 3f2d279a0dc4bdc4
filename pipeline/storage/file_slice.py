"""A range of a file as the body of a request."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Event


class ReadAbandoned(OSError):
    """The caller abandoned the request that sends the bytes."""


class SliceTruncated(OSError):
    """The file ends inside the slice."""


@dataclass(frozen=True, slots=True)
class FileSlice:
    """`size_bytes` bytes of the file at `path`, beginning at `offset`.

    A slice is sent block by block, so memory does not grow with the size of a part.
    """

    path: Path
    offset: int
    size_bytes: int

    def open(self, *, abandoned: Event) -> io.RawIOBase:
        """Return a reader of the slice; `read` raises `ReadAbandoned` once `abandoned` is set.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        return _SliceReader(self, abandoned=abandoned)


class _SliceReader(io.RawIOBase):
    """Reads by position: readers of one file share no file offset."""

    def __init__(self, body: FileSlice, *, abandoned: Event) -> None:
        super().__init__()
        self._body = body
        self._abandoned = abandoned
        self._position = 0
        self._descriptor = os.open(body.path, os.O_RDONLY | os.O_CLOEXEC)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._body.size_bytes}
        self._position = max(0, start[whence] + offset)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        if self._abandoned.is_set():
            raise ReadAbandoned
        left = max(0, self._body.size_bytes - self._position)
        wanted = left if size < 0 else min(size, left)
        block = os.pread(self._descriptor, wanted, self._body.offset + self._position)
        if wanted and not block:
            # A body shorter than its Content-Length would block the store until its timeout.
            raise SliceTruncated
        self._position += len(block)
        return block

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
