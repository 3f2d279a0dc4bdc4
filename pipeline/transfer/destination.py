"""Makes the object of an upload, and verifies that the object is the file."""

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from pipeline.steps.call_pool import CallPool
from pipeline.storage.errors import MultipartGone, ObjectExists, ObjectMissing
from pipeline.storage.plan import PartPlan
from pipeline.storage.port import Multipart, ObjectHead, ObjectStorage, StoredPart
from pipeline.transfer import checks
from schemas.errors import DomainError, ErrorCode, StoreFailed, StoreUnavailable
from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)


class StoredObjectMismatch(DomainError):
    """The stored object differs from the file that was sent."""

    code = ErrorCode.STORED_OBJECT_MISMATCH

    def __init__(self, head: ObjectHead, *, size_bytes: int, etag: str) -> None:
        super().__init__(
            f"sent {size_bytes} bytes with ETag {etag},"
            f" but the store has {head.size_bytes} bytes with ETag {head.etag}"
        )


class Destination:
    """The key of one upload; no other upload writes to it.

    `part_md5s` are the MD5s of the parts, in order. `md5_of_file` reads the whole file
    again and is called for files of up to `reread_max_bytes` only.
    """

    def __init__(
        self,
        key: ObjectKey,
        *,
        storage: ObjectStorage,
        plan: PartPlan,
        pool: CallPool[StoredPart],
        md5_of_file: Callable[[], bytes],
        reread_max_bytes: int,
    ) -> None:
        self._key = key
        self._storage = storage
        self._plan = plan
        self._pool = pool
        self._md5_of_file = md5_of_file
        self._reread_max_bytes = reread_max_bytes

    def head(self) -> ObjectHead | None:
        try:
            return self._pool.run(partial(self._storage.head, self._key))
        except ObjectMissing:
            return None

    def is_verifiable(self, head: ObjectHead) -> bool:
        """Return whether the object has the file's size and an ETag that can verify the bytes."""
        return (
            head.size_bytes == self._plan.size_bytes
            and head.etag_is_digest
            and not self._needs_long_reread(head)
        )

    def is_made_of(self, part_md5s: Sequence[bytes], *, head: ObjectHead) -> bool:
        return checks.etag_matches(
            head.etag, part_md5s=part_md5s, file_md5=partial(self._pool.run, self._md5_of_file)
        )

    def create(
        self,
        make: Callable[[], None],
        *,
        multipart: Multipart | None,
        part_md5s: Sequence[bytes],
        parts_are_verified: bool,
        before_deleting: Callable[[], None],
    ) -> ObjectHead:
        """Make the object, verify that it is the file, and return its properties.

        Args:
            make: the request that makes the object; may raise `ObjectExists` or `MultipartGone`.
            multipart: the multipart upload of the object, if it has one.
            part_md5s: MD5s of the parts.
            parts_are_verified: whether the store confirmed each part's MD5 when it stored the part.
            before_deleting: raises if another worker may own the object at the key.

        Raises:
            ObjectExists: the key has another object again although an object was deleted.
            StoredObjectMismatch: the new object has other bytes.
            MultipartGone: the multipart upload is gone; the file must be sent again.
        """
        try:
            is_new = self._make(make)
        except ObjectExists:
            found = self.head()
            is_ours = (
                found is not None
                and self.is_verifiable(found)
                and self.is_made_of(part_md5s, head=found)
            )
            if found is not None and is_ours and not self._is_open(multipart):
                return found
            # The key belongs to this upload alone: an earlier attempt left the object.
            log.warning("transfer.leftover_removed", key=self._key)
            before_deleting()
            self._pool.run(partial(self._storage.delete, self._key, abandoned=self._pool.abandoned))
            if is_ours and multipart is not None:
                self._pool.run(partial(self._storage.abort, multipart))
                raise MultipartGone(self._key) from None
            is_new = self._make(make)
        head = self.head()
        if head is None:
            raise StoreUnavailable("head", reason="the new object is not visible")
        if self._is_the_file(
            head, part_md5s=part_md5s, is_new=is_new, parts_are_verified=parts_are_verified
        ):
            return head
        if not is_new:
            # The object may be from another attempt; the next attempt replaces it.
            raise MultipartGone(self._key)
        raise StoredObjectMismatch(
            head, size_bytes=self._plan.size_bytes, etag=checks.multipart_etag(part_md5s)
        )

    def abort_others(self, *, keep: Multipart) -> None:
        """Abort multipart uploads that were never recorded: the worker died right after create."""
        for multipart in self._open_multiparts():
            # Some stores list a multipart upload for a while after it was completed.
            # Aborting it would destroy the object.
            if multipart != keep:
                try:
                    self._pool.run(partial(self._storage.abort, multipart))
                except StoreFailed as error:
                    log.warning("transfer.abort_failed", key=self._key, reason=str(error))

    def _make(self, make: Callable[[], None]) -> bool:
        """Return whether the store confirmed that this request made the object."""
        try:
            self._pool.run(make)
        except MultipartGone:
            # Aborted, or completed by an earlier try whose answer was lost: HEAD decides.
            return False
        return True

    def _is_the_file(
        self,
        head: ObjectHead,
        *,
        part_md5s: Sequence[bytes],
        is_new: bool,
        parts_are_verified: bool,
    ) -> bool:
        if head.size_bytes != self._plan.size_bytes:
            return False
        if not head.etag_is_digest:
            return True
        if self._needs_long_reread(head):
            if not is_new:
                return False
            if parts_are_verified:
                # The store has just confirmed that it made the object of these parts.
                log.warning("transfer.etag_not_compared", key=self._key, etag=head.etag)
                return True
        return self.is_made_of(part_md5s, head=head)

    def _needs_long_reread(self, head: ObjectHead) -> bool:
        """Return whether verification needs the MD5 of a file that is too large to read again."""
        return (
            self._plan.is_multipart
            and not checks.is_multipart_etag(head.etag)
            and self._plan.size_bytes > self._reread_max_bytes
        )

    def _is_open(self, multipart: Multipart | None) -> bool:
        """Return whether the store lists the multipart upload although its object exists.

        Swift does so after a crash within Complete. Object and multipart upload then share their
        parts: aborting the multipart upload later would destroy the object.
        """
        return multipart is not None and multipart in self._open_multiparts()

    def _open_multiparts(self) -> list[Multipart]:
        """Return the open multipart uploads of the key; none if the store does not list them."""
        try:
            return self._pool.run(partial(self._storage.open_multiparts, self._key))
        except StoreFailed as error:
            log.warning("transfer.multiparts_not_listed", key=self._key, reason=str(error))
            return []
