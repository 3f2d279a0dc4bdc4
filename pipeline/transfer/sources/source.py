"""The bytes of an upload that wait for their transfer."""

from collections.abc import Iterator
from threading import Event
from typing import ClassVar, Protocol

from pipeline.storage.file_slice import FileSlice
from pipeline.storage.port import ObjectRange
from pipeline.transfer.checks import FileCheck
from pipeline.transfer.plan import Part
from schemas.errors import DomainError
from schemas.lifecycle import StagingKind


class Source(Protocol):
    """A file that a transfer reads once, from its first byte to its last.

    Reading raises `FileNotFoundError` or `ObjectMissing` if the bytes are gone; the
    transfer reports `missing()` in their place.
    """

    kind: ClassVar[StagingKind]

    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> str | None:
        """Digest of the whole file in hex, if the client declared one."""

    @property
    def content_type(self) -> str | None:
        """Media type that the client declared."""

    def check(self) -> FileCheck:
        """Return the check that every byte has to pass, in order.

        Raises:
            ManifestIncomplete: the acknowledged chunks do not cover the file.
        """

    @property
    def version(self) -> str:
        """Version tag of the source (ETag); empty for sources that cannot change.

        A checkpoint taken from another version is discarded.
        """

    def blocks(self, offset: int, size_bytes: int, *, abandoned: Event) -> Iterator[bytes]:
        """Yield the bytes of a range in blocks of any size.

        Raises:
            StagingTruncated: the bytes end early.
            StoreFailed: the store that holds the bytes fails.
            ReadAbandoned: `abandoned` was set meanwhile.
        """

    def slice_of(self, part: Part) -> FileSlice | None:
        """Return the part as a slice of a local file; None if there is no such file."""

    def range_of(self, part: Part) -> ObjectRange | None:
        """Return the part as a range of one object of the bucket; None if there is no such object."""

    def confirm(self) -> None:
        """Verify that every byte was read from the same version.

        Raises:
            DomainError: the source changed meanwhile; retryable.
        """

    def missing(self) -> DomainError:
        """Return the error for a source whose bytes are gone."""
