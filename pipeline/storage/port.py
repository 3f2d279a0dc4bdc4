"""The calls on object storage that the pipeline uses, and no more."""

from collections.abc import Sequence
from dataclasses import dataclass
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

    def list_parts(self, multipart: Multipart) -> list[StoredPart]:
        """Return every stored part in order of number.

        Some stores still answer after the upload was completed.

        Raises:
            MultipartGone: the upload is no longer open.
        """

    def complete(self, multipart: Multipart, *, parts: Sequence[StoredPart]) -> None:
        """Make the object out of the parts, given in order of number.

        Raises:
            MultipartGone: aborted, or completed by an earlier try whose answer was lost.
        """

    def abort(self, multipart: Multipart) -> None:
        """Drop an unfinished upload and its parts; one that is gone is no error."""

    def open_multiparts(self, key: ObjectKey) -> list[Multipart]:
        """Return the unfinished uploads of exactly this key."""

    def put(self, key: ObjectKey, *, body: Body, content_type: str, abandoned: Event) -> None:
        """Store an object in one request, or leave what was there.

        Raises:
            BodyAltered: the bytes that arrived do not have the MD5 of `body`.
        """

    def head(self, key: ObjectKey) -> ObjectHead:
        """Return what the store says about an object.

        Raises:
            ObjectMissing: there is none.
        """

    def download(self, key: ObjectKey, *, to: Path) -> None:
        """Write an object's bytes to a file, which is created or replaced.

        Raises:
            ObjectMissing: there is none; `to` is not touched.
        """

    def delete(self, key: ObjectKey) -> None:
        """Remove an object; one that is not there is no error."""
