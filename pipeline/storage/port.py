"""The calls on object storage that the pipeline uses, and no more."""

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
    """A multipart upload that was opened; its id means nothing without its key."""

    key: ObjectKey
    id: str


@dataclass(frozen=True, slots=True)
class StoredPart:
    number: int
    size_bytes: int
    etag: str
    """As the store gave it, quotes stripped: the part's MD5 unless the bucket encrypts with KMS."""
    etag_is_digest: bool = True
    """As in `ObjectHead`, said where a part is stored; a listing does not say it."""


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to send and the MD5 the store must find in them."""

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
    """False where the store encrypts with a key of its own: the ETag then says nothing of the bytes."""


@dataclass(frozen=True, slots=True)
class ObjectRange:
    """`size_bytes` bytes of an object that is in the bucket already, from `offset` on."""

    key: ObjectKey
    offset: int
    size_bytes: int
    etag: str | None = None
    """Of the object that is meant, where another one may have come in its place."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    key: ObjectKey
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class ListedMultipart:
    multipart: Multipart
    begun_at: datetime


class ObjectStorage(Protocol):
    """One bucket. Safe to call from many threads.

    Every call may raise `StoreUnavailable` (already retried) and
    `StoreRejected`; further errors are named by the call that raises them.
    Calls that send a body give up as soon as `abandoned` is set.
    """

    def create_multipart(self, key: ObjectKey, *, content_type: str) -> Multipart:
        """Open a multipart upload.

        A lost answer leaves an upload behind that nobody knows; it is found by
        `open_multiparts`.
        """

    def upload_part(
        self, multipart: Multipart, *, number: int, body: Body, abandoned: Event
    ) -> StoredPart:
        """Store one part; the same number again replaces it.

        Raises:
            MultipartGone: the upload is no longer open.
            BodyAltered: the bytes that arrived do not have the MD5 of `body`.
        """

    def copy_part(self, multipart: Multipart, *, number: int, source: ObjectRange) -> StoredPart:
        """Make a part out of what is in the bucket; its bytes do not travel through here.

        Nobody checks them on the way. Where the object ends inside the range, some
        stores copy what there is, and the size returned is that of the range all the same.

        Raises:
            MultipartGone: the upload is no longer open.
            ObjectMissing: there is no object at the source's key.
            CopyUnsupported: this store cannot, and the upload is as it was; read the
                source and upload the part.
        """

    def list_parts(self, multipart: Multipart) -> list[StoredPart]:
        """Return every stored part in order of number.

        Some stores still answer after the upload was completed.

        Raises:
            MultipartGone: the upload is no longer open.
        """

    def complete(self, multipart: Multipart, *, parts: Sequence[StoredPart]) -> None:
        """Make the object out of the parts, given in order of number, where there is none yet.

        A store that does not know `If-None-Match` replaces what was there.

        Raises:
            ObjectExists: there is one at this key already, and the upload stays open. It
                may be this one's own, where the answer to an earlier try was lost.
            MultipartGone: aborted, or completed by an earlier try whose answer was lost.
            PartReplaced: a part has another ETag by now; with some stores the upload ends.
        """

    def abort(self, multipart: Multipart) -> None:
        """Drop an unfinished upload and its parts; one that is gone is no error."""

    def open_multiparts(self, key: ObjectKey) -> list[Multipart]:
        """Return the unfinished uploads of exactly this key."""

    def put(self, key: ObjectKey, *, body: Body, content_type: str, abandoned: Event) -> None:
        """Store an object in one request where there is none yet, or leave what was there.

        A store that does not know `If-None-Match` replaces what was there.

        Raises:
            ObjectExists: there is one at this key already; it may be this one, where the
                answer to an earlier try was lost.
            BodyAltered: the bytes that arrived do not have the MD5 of `body`.
        """

    def head(self, key: ObjectKey) -> ObjectHead:
        """Return what the store says about an object.

        Raises:
            ObjectMissing: there is none.
        """

    def read(
        self, source: ObjectRange, *, abandoned: Event
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Open a range for reading, block by block; never more than a block is held.

        Reading raises `StoreUnavailable` where the connection breaks, or once
        `abandoned` is set; what was read until then is all there is of this try.

        Raises:
            ObjectMissing: there is no such object.
            RangeEndsEarly: there is one, and it is too short; nothing was read.
            ObjectReplaced: there is one, and its ETag is not that of `source`; nothing was read.
        """

    def download(self, key: ObjectKey, *, to: Path) -> None:
        """Write an object's bytes to a file, which is created or replaced.

        Raises:
            ObjectMissing: there is none; `to` is not touched.
        """

    def delete(self, key: ObjectKey, *, abandoned: Event | None = None) -> None:
        """Remove an object; one that is not there is no error.

        Not asked for again once `abandoned` is set: what is there by then may be another one.
        """

    def delete_all(self, keys: Sequence[ObjectKey]) -> None:
        """Remove objects, many in one request; ones that are not there are no error."""

    def objects_under(self, prefix: str) -> Iterator[ListedObject]:
        """Yield every object whose key begins so, in order of key, page by page."""

    def multiparts_under(self, prefix: str) -> Iterator[ListedMultipart]:
        """Yield every unfinished upload whose key begins so, page by page."""
