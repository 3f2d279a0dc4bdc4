"""The bytes of an upload that wait for their transfer."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import ClassVar

from pipeline.storage.file_slice import FileSlice
from pipeline.storage.plan import Part
from pipeline.storage.port import ObjectRange
from pipeline.transfer.checks import Chunk, FileCheck
from schemas.errors import DomainError, StagingMissing
from schemas.lifecycle import StagingKind


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A file that a transfer reads once, from its first byte to its last.

    Reading raises `FileNotFoundError` or `ObjectMissing` if the bytes are gone; the transfer raises
    `missing()` instead.
    """

    kind: ClassVar[StagingKind]

    size_bytes: int
    sha256: str | None
    """Digest of the whole file in hex, if the client declared one."""
    content_type: str | None
    """Media type that the client declared."""

    @property
    def version(self) -> str:
        """Version tag of the source (ETag); empty for sources that cannot change.

        A checkpoint taken from another version is discarded.
        """
        return ""

    @abstractmethod
    def check(self) -> FileCheck:
        """Return the check that every byte has to pass, in order.

        Raises:
            ManifestIncomplete: the acknowledged chunks do not cover the file.
        """

    @abstractmethod
    def blocks(self, offset: int, size_bytes: int, *, abandoned: Event) -> Iterator[bytes]:
        """Yield the bytes of a range in blocks of any size.

        Raises:
            StagingTruncated: the bytes end early.
            StoreFailed: the store that holds the bytes fails.
            ReadAbandoned: `abandoned` was set meanwhile.
        """

    def slice_of(self, part: Part) -> FileSlice | None:  # noqa: ARG002  # for subclasses
        """Return the part as a slice of a local file; None if the part is not in one local file."""
        return None

    def range_of(self, part: Part) -> ObjectRange | None:  # noqa: ARG002  # for subclasses
        """Return the part as a range of an object; None if the part is not in one object."""
        return None

    def confirm(self) -> None:  # noqa: B027  # chunks are confirmed by their digests
        """Verify that every byte was read from the same version.

        Raises:
            DomainError: the source changed meanwhile; retryable.
        """

    @abstractmethod
    def missing(self) -> DomainError:
        """Return the error for a source whose bytes are gone."""


@dataclass(frozen=True, kw_only=True)
class StagedSource(Source):
    """Chunks that the client uploaded; chunk `i` begins at byte `i * chunk_size`."""

    chunk_size: int
    chunks: Sequence[Chunk]

    def check(self) -> FileCheck:
        return FileCheck.against(
            self.chunks, chunk_size=self.chunk_size, size_bytes=self.size_bytes
        )

    def missing(self) -> StagingMissing:
        return StagingMissing(f"the staged file of {self.size_bytes} bytes is gone")
