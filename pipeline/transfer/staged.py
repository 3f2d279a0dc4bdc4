"""A staged upload: one sparse file, read from front to back."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.storage.file_slice import FileSlice
from pipeline.storage.port import Body
from pipeline.transfer.checksums import Chunk, FileCheck, StagingTruncated
from pipeline.transfer.plan import Part, PartPlan

# Small enough to stay in the processor's cache between the three digests of a byte.
READ_BLOCK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class StagedFile:
    """What was acked to the client, and where it lies.

    Its methods raise `FileNotFoundError` where the file is gone, except for a
    file of no bytes, which needs none.
    """

    path: Path
    size_bytes: int
    chunk_size: int
    chunks: Sequence[Chunk]
    sha256: str | None
    """The whole file's digest, hex, where the client declared one."""
    content_type: str | None
    """As the client declared it."""

    def first_bytes(self, count: int) -> bytes:
        if not self.size_bytes:
            return b""
        with self.path.open("rb") as file:
            return file.read(min(count, self.size_bytes))

    def bodies(
        self, plan: PartPlan, *, check: FileCheck, pause: Callable[[], None]
    ) -> Iterator[tuple[Part, Body]]:
        """Read the file once and yield each part as soon as it was digested.

        Every byte passes `check` on the way. What is yielded is a slice of the
        file and the MD5 of the bytes just read: should the file change before
        the slice is sent, the store refuses it.

        Args:
            plan: where to cut.
            check: takes all the bytes, in order.
            pause: called between blocks, every few milliseconds.

        Raises:
            StagingTruncated: the file ends early.
            ChunkCorrupt: from `check`.
        """
        for part in plan:
            md5 = hashlib.md5(usedforsecurity=False)
            for block in self._blocks(part.offset, part.size_bytes):
                check.update(block)
                md5.update(block)
                pause()
            content = FileSlice(self.path, offset=part.offset, size_bytes=part.size_bytes)
            yield part, Body(content, md5=md5.digest())

    def md5(self, *, pause: Callable[[], None]) -> bytes:
        """Read the file once more for the MD5 of the whole of it."""
        md5 = hashlib.md5(usedforsecurity=False)
        for block in self._blocks(0, self.size_bytes):
            md5.update(block)
            pause()
        return md5.digest()

    def _blocks(self, offset: int, size_bytes: int) -> Iterator[memoryview]:
        """Yield a stretch of the file in blocks; each is overwritten by the next."""
        if not size_bytes:
            return
        buffer = memoryview(bytearray(READ_BLOCK))
        end = offset + size_bytes
        with self.path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), offset, size_bytes, os.POSIX_FADV_SEQUENTIAL)
            while offset < end:
                read = os.preadv(file.fileno(), [buffer[: end - offset]], offset)
                if read == 0:
                    raise StagingTruncated(expected_bytes=self.size_bytes, actual_bytes=offset)
                yield buffer[:read]
                offset += read
