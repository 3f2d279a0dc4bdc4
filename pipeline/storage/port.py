"""The calls on object storage that the pipeline uses."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Protocol

from pipeline.storage.file_slice import FileSlice
from schemas.object_keys import ObjectKey


@dataclass(frozen=True, slots=True)
class Multipart:
    """A multipart upload; its id is unique only together with its key."""

    key: ObjectKey
    id: str


@dataclass(frozen=True, slots=True)
class StoredPart:
    number: int
    size_bytes: int
    etag: str
    """As the store returned it, without quotes: the part's MD5 unless the bucket encrypts with KMS."""
    etag_is_digest: bool = True
    """As in `ObjectHead`; known when a part is stored, not from a listing."""


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to send, and their MD5, which the store checks."""

    content: FileSlice | bytes
    md5: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.size_bytes


@dataclass(frozen=True, slots=True)
class ObjectHead:
    size_bytes: int
    etag: str
    content_type: str
    etag_is_digest: bool
    """False if the store encrypts with a key of its own; the ETag is then independent of the bytes."""


@dataclass(frozen=True, slots=True)
class ObjectRange:
    """`size_bytes` bytes of an object in the bucket, beginning at `offset`."""

    key: ObjectKey
    offset: int
    size_bytes: int
    etag: str | None = None
    """The expected ETag, if the object may have been replaced."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    key: ObjectKey
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class ListedMultipart:
    multipart: Multipart
    begun_at: datetime


class ObjectStorage(Protocol):
    """The operations on one bucket. Thread-safe.

    Every call may raise `StoreUnavailable` (after retries), `StoreMisconfigured` and
    `StoreRejected`; each call names its other errors. Calls that send a body stop as soon
    as `abandoned` is set.
    """

    def create_multipart(self, key: ObjectKey, *, content_type: str) -> Multipart:
        """Create a multipart upload.

        If the answer is lost, the multipart upload stays without a record;
        `open_multiparts` lists it.
        """

    def upload_part(
        self, multipart: Multipart, *, number: int, body: Body, abandoned: Event
    ) -> StoredPart:
        """Store one part; a part with the same number is replaced.

        Raises:
            MultipartGone: the multipart upload is no longer open.
            BodyAltered: the received bytes do not have the MD5 of `body`.
        """

    def copy_part(self, multipart: Multipart, *, number: int, source: ObjectRange) -> StoredPart:
        """Copy a range of an object in the bucket to a part, inside the store.

        The bytes are not checked. If the object ends inside the range, some stores copy
        the bytes that exist; the returned size is nevertheless that of the range.

        Raises:
            MultipartGone: the multipart upload is no longer open.
            ObjectMissing: there is no object at the source's key.
            CopyUnsupported: the store does not copy parts; the multipart upload is unchanged.
        """

    def list_parts(self, multipart: Multipart) -> list[StoredPart]:
        """Return every stored part in order of number.

        Some stores still list the parts after the multipart upload was completed.

        Raises:
            MultipartGone: the multipart upload is no longer open.
        """

    def complete(self, multipart: Multipart, *, parts: Sequence[StoredPart]) -> None:
        """Make the object of the parts, given in order of number, if the key has no object yet.

        A store without `If-None-Match` replaces an existing object.

        Raises:
            ObjectExists: the key has an object, and the multipart upload stays open. The object may
                come from an earlier try whose answer was lost.
            MultipartGone: the multipart upload was aborted, or an earlier try whose answer was lost
                completed it.
            PartReplaced: a part has another ETag now; some stores end the multipart upload.
        """

    def abort(self, multipart: Multipart) -> None:
        """Delete an open multipart upload and its parts. Idempotent."""

    def open_multiparts(self, key: ObjectKey) -> list[Multipart]:
        """Return the open multipart uploads of exactly this key."""

    def put(self, key: ObjectKey, *, body: Body, content_type: str, abandoned: Event) -> None:
        """Store an object in one request if the key has no object yet.

        A store without `If-None-Match` replaces an existing object.

        Raises:
            ObjectExists: the key has an object; it may come from an earlier try whose answer was
                lost.
            BodyAltered: the received bytes do not have the MD5 of `body`.
        """

    def head(self, key: ObjectKey) -> ObjectHead:
        """Return the properties of an object.

        Raises:
            ObjectMissing: there is no object.
        """

    def read(
        self, source: ObjectRange, *, abandoned: Event
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Open a range for reading, block by block; at most one block is in memory.

        Reading raises `StoreUnavailable` if the connection breaks, or once `abandoned` is
        set. The read is not retried: the caller reads the rest.

        Raises:
            ObjectMissing: there is no such object.
            RangeEndsEarly: the object is too short; nothing was read.
            ObjectReplaced: the object's ETag is not that of `source`; nothing was read.
        """

    def download(self, key: ObjectKey, *, to: Path) -> None:
        """Write an object's bytes to a file, which is created or replaced.

        Raises:
            ObjectMissing: there is no object; `to` is unchanged.
        """

    def delete(self, key: ObjectKey, *, abandoned: Event | None = None) -> None:
        """Delete an object. Idempotent.

        Not retried once `abandoned` is set, because by then another object may be at the key.
        """

    def delete_all(self, keys: Sequence[ObjectKey]) -> None:
        """Delete objects, many in one request. Idempotent."""

    def objects_under(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects whose keys begin with `prefix`, in order of key, page by page."""

    def multiparts_under(self, prefix: str) -> Iterator[ListedMultipart]:
        """Yield the open multipart uploads whose keys begin with `prefix`, page by page."""
