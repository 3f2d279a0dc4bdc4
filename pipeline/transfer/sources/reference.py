"""An object that the client put into the bucket; it is copied and never changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import ClassVar, Self

from pipeline.storage import range_reader
from pipeline.storage.errors import ObjectMissing, ObjectReplaced, RangeEndsEarly
from pipeline.storage.plan import Part
from pipeline.storage.port import ObjectRange, ObjectStorage
from pipeline.transfer.checks import FileCheck
from pipeline.transfer.sources.source import Source
from schemas.errors import DomainError, ErrorCode
from schemas.lifecycle import StagingKind
from schemas.object_keys import ObjectKey
from schemas.policy import media_types


class ReferenceMissing(DomainError):
    """The object that the client named does not exist.

    Attributes:
        nothing_sent: whether no worker can have sent a part of the object, so that the store has
            nothing to clean up.
    """

    code = ErrorCode.REFERENCE_MISSING
    caused_by_client = True

    def __init__(self, key: ObjectKey) -> None:
        self.nothing_sent = False
        super().__init__(f"there is no object {key} to copy")


class ReferenceChanged(DomainError):
    """The object that the client named was replaced during the copy.

    Retryable: the next attempt copies the new object.
    """

    code = ErrorCode.STORED_OBJECT_MISMATCH
    caused_by_client = True
    retryable = True

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(f"the object {key} changed while it was being copied")


@dataclass(frozen=True, kw_only=True)
class ReferencedObject(Source):
    """The object as `find` saw it; `confirm` verifies that it has not changed since."""

    kind: ClassVar = StagingKind.REFERENCE

    storage: ObjectStorage
    key: ObjectKey
    etag: str
    sniffed_type: str | None

    @classmethod
    def find(
        cls, key: ObjectKey, *, storage: ObjectStorage, sha256: str | None, content_type: str | None
    ) -> Self:
        """Look the object up and sniff its media type.

        Raises:
            ReferenceMissing: the object does not exist.
        """
        try:
            head = storage.head(key)
            start = ObjectRange(
                key, offset=0, size_bytes=min(head.size_bytes, media_types.SNIFFED_BYTES)
            )
            first_bytes = b"".join(range_reader.blocks(start, storage=storage, abandoned=Event()))
        except ObjectMissing as error:
            raise ReferenceMissing(key) from error
        return cls(
            storage=storage,
            key=key,
            size_bytes=head.size_bytes,
            etag=head.etag,
            sniffed_type=media_types.sniff(first_bytes),
            sha256=sha256,
            content_type=content_type or head.content_type or None,
        )

    def check(self) -> FileCheck:
        return FileCheck.of_any(size_bytes=self.size_bytes)

    @property
    def version(self) -> str:
        return self.etag

    def blocks(self, offset: int, size_bytes: int, *, abandoned: Event) -> Iterator[bytes]:
        source = ObjectRange(self.key, offset=offset, size_bytes=size_bytes, etag=self.etag)
        try:
            yield from range_reader.blocks(source, storage=self.storage, abandoned=abandoned)
        except (RangeEndsEarly, ObjectReplaced) as error:
            raise ReferenceChanged(self.key) from error

    def range_of(self, part: Part) -> ObjectRange:
        return ObjectRange(self.key, offset=part.offset, size_bytes=part.size_bytes)

    def confirm(self) -> None:
        head = self.storage.head(self.key)
        if (head.size_bytes, head.etag) != (self.size_bytes, self.etag):
            raise ReferenceChanged(self.key)

    def missing(self) -> ReferenceMissing:
        return ReferenceMissing(self.key)
