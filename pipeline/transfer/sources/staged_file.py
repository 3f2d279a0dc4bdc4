"""An upload in the staging directory: one sparse file."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import ClassVar, Final

from pipeline.storage.file_slice import FileSlice, ReadAbandoned
from pipeline.transfer.checks import Chunk, FileCheck, StagingTruncated
from pipeline.transfer.plan import Part
from schemas.errors import StagingMissing
from schemas.lifecycle import StagingKind

# Small enough to stay in the processor's cache between the digests of a block.
READ_BLOCK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class StagedFile:
    """Chunk `i` lies at byte `i * chunk_size`. The file of an empty upload may be absent."""

    kind: ClassVar = StagingKind.DIRECTORY
    version: ClassVar = ""

    path: Path
    size_bytes: int
    chunk_size: int
    chunks: Sequence[Chunk]
    sha256: str | None
    content_type: str | None

    def check(self) -> FileCheck:
        return FileCheck.against(
            self.chunks, chunk_size=self.chunk_size, size_bytes=self.size_bytes
        )

    def blocks(self, offset: int, size_bytes: int, *, abandoned: Event) -> Iterator[bytes]:
        if not size_bytes:
            return
        end = offset + size_bytes
        with self.path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), offset, size_bytes, os.POSIX_FADV_SEQUENTIAL)
            while offset < end:
                if abandoned.is_set():
                    raise ReadAbandoned
                block = os.pread(file.fileno(), min(READ_BLOCK, end - offset), offset)
                if not block:
                    raise StagingTruncated(expected_bytes=self.size_bytes, actual_bytes=offset)
                yield block
                offset += len(block)

    def slice_of(self, part: Part) -> FileSlice:
        # If the file changes before the part is sent, the store refuses the part by its MD5.
        return FileSlice(self.path, offset=part.offset, size_bytes=part.size_bytes)

    def range_of(self, part: Part) -> None:
        """Return None: the file is on this machine."""

    def confirm(self) -> None:
        """Do nothing: every chunk was checked by its digest."""

    def missing(self) -> StagingMissing:
        return StagingMissing(f"the staged file of {self.size_bytes} bytes is gone")
