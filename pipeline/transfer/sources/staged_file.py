"""An upload in the staging directory: one sparse file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import ClassVar, Final

from pipeline.storage.file_slice import FileSlice, ReadAbandoned
from pipeline.storage.plan import Part
from pipeline.transfer.checks import StagingTruncated
from pipeline.transfer.sources.source import StagedSource
from schemas.lifecycle import StagingKind

# Small enough to stay in the processor's cache between the digests of a block.
READ_BLOCK: Final = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class StagedFile(StagedSource):
    """One file in the order of its chunks. The file of an empty upload may be absent."""

    kind: ClassVar = StagingKind.DIRECTORY

    path: Path

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
