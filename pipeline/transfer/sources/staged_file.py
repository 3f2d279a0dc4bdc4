"""What is to become an object: where its bytes lie, and what is known of them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import ClassVar, Final, Protocol

from pipeline.storage.file_slice import FileSlice, ReadAbandoned
from pipeline.storage.port import ObjectRange
from pipeline.transfer.checks import Chunk, FileCheck, StagingTruncated
from pipeline.transfer.plan import Part
from schemas.errors import DomainError, ErrorCode
from schemas.lifecycle import StagingKind

# Small enough to stay in the processor's cache between the digests of a byte.
READ_BLOCK: Final = 256 * 1024


class StagingMissing(DomainError):
    """What was staged is not there."""

    code = ErrorCode.STAGING_MISSING

    def __init__(self, *, size_bytes: int) -> None:
        super().__init__(f"the staged file of {size_bytes} bytes is gone")


class Source(Protocol):
    """A file on its way into the store, read from front to back, once.

    Reading raises `FileNotFoundError` or `ObjectMissing` where it is gone, which
    is told as `gone` has it.
    """

    kind: ClassVar[StagingKind]

    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> str | None:
        """The whole file's digest, hex, where the client declared one."""

    @property
    def content_type(self) -> str | None:
        """As the client declared it."""

    def check(self) -> FileCheck:
        """Return what all the bytes have to pass, in order.

        Raises:
            ManifestIncomplete: what was acked does not make up a file.
        """

    @property
    def version(self) -> str:
        """What is another one where the bytes are others; empty where they stay what they are."""

    def blocks(self, offset: int, size_bytes: int, *, abandoned: Event) -> Iterator[bytes]:
        """Yield a stretch of the bytes, cut anywhere.

        Raises:
            StagingTruncated: the bytes end early.
            StoreFailed: from a store that has them.
            ReadAbandoned: `abandoned` was set meanwhile.
        """

    def slice_of(self, part: Part) -> FileSlice | None:
        """Return where a part's bytes lie on this machine, if they do."""

    def range_of(self, part: Part) -> ObjectRange | None:
        """Return where a part's bytes lie in one object of the bucket, if they do."""

    def confirm(self) -> None:
        """See that all that was read was of one and the same file, where that is not sure.

        Raises:
            DomainError: it was not; retryable.
        """

    def gone(self) -> DomainError:
        """Return what to tell where the bytes are no longer there."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One sparse file; chunk `i` lies at `i * chunk_size`. A file of no bytes need not be there."""

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
        # Should the file change before it is sent, the store refuses it by its MD5.
        return FileSlice(self.path, offset=part.offset, size_bytes=part.size_bytes)

    def range_of(self, part: Part) -> None:
        """There is none: the file is on this machine."""

    def confirm(self) -> None:
        """Nothing is left to see: every chunk had its digest."""

    def gone(self) -> StagingMissing:
        return StagingMissing(size_bytes=self.size_bytes)
