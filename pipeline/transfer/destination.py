"""The key where an upload becomes an object: what is there, and whether it is the file."""

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from pipeline.storage.errors import (
    MultipartGone,
    ObjectExists,
    ObjectMissing,
    StoreFailed,
    StoreUnavailable,
)
from pipeline.storage.port import Multipart, ObjectHead, ObjectStorage, StoredPart
from pipeline.transfer import checks
from pipeline.transfer.part_pool import PartUploadPool
from pipeline.transfer.plan import PartPlan
from schemas.errors import DomainError, ErrorCode
from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)


class StoredObjectMismatch(DomainError):
    """The store reports another object than the one that was sent."""

    code = ErrorCode.STORED_OBJECT_MISMATCH

    def __init__(self, head: ObjectHead, *, size_bytes: int, etag: str) -> None:
        super().__init__(
            f"sent {size_bytes} bytes with ETag {etag},"
            f" but the store has {head.size_bytes} bytes with ETag {head.etag}"
        )


class Destination:
    """A key that belongs to one upload alone.

    The MD5s its methods take are those of the parts, in order; `md5_of_file` reads
    the whole file again, and is asked for up to `read_again_at_most` bytes.
    """

    def __init__(
        self,
        key: ObjectKey,
        *,
        storage: ObjectStorage,
        plan: PartPlan,
        lanes: PartUploadPool[StoredPart],
        md5_of_file: Callable[[], bytes],
        read_again_at_most: int,
    ) -> None:
        self._key = key
        self._storage = storage
        self._plan = plan
        self._lanes = lanes
        self._md5_of_file = md5_of_file
        self._read_again_at_most = read_again_at_most

    def look(self) -> ObjectHead | None:
        try:
            return self._lanes.run(partial(self._storage.head, self._key))
        except ObjectMissing:
            return None

    def could_prove(self, head: ObjectHead) -> bool:
        """Whether this may be the file, and its ETag would show it."""
        return (
            head.size_bytes == self._plan.size_bytes
            and head.etag_is_digest
            and not self._is_beyond_proof(head)
        )

    def has_etag_of(self, md5s: Sequence[bytes], *, head: ObjectHead) -> bool:
        return checks.etag_matches(
            head.etag, part_md5s=md5s, file_md5=partial(self._lanes.run, self._md5_of_file)
        )

    def create(
        self,
        make: Callable[[], None],
        *,
        of: Multipart | None,
        md5s: Sequence[bytes],
        were_parts_proven: bool,
        before_deleting: Callable[[], None],
    ) -> ObjectHead:
        """Make the object and return what the store proves to have.

        Args:
            make: the request that makes it; may raise `ObjectExists` or `MultipartGone`.
            of: the multipart upload it is made of, if it is.
            md5s: of the parts.
            were_parts_proven: whether the store gave each part's MD5 when it took the part.
            before_deleting: raises where what is at the key may be another worker's.

        Raises:
            ObjectExists: again and again there is another one.
            StoredObjectMismatch: there is one with other bytes.
            MultipartGone: it has to be sent anew.
        """
        try:
            is_new = self._make(make)
        except ObjectExists:
            found = self.look()
            is_ours = (
                found is not None and self.could_prove(found) and self.has_etag_of(md5s, head=found)
            )
            if found is not None and is_ours and not self._is_open(of):
                return found
            # The key is this upload's alone: it is what an earlier attempt left.
            log.warning("transfer.leftover_removed", key=self._key)
            before_deleting()
            self._lanes.run(
                partial(self._storage.delete, self._key, abandoned=self._lanes.abandoned)
            )
            if is_ours and of is not None:
                self._lanes.run(partial(self._storage.abort, of))
                raise MultipartGone(self._key) from None
            is_new = self._make(make)
        head = self.look()
        if head is None:
            raise StoreUnavailable("head", reason="the object just stored is not to be seen")
        if self._is_the_file(head, md5s=md5s, is_new=is_new, were_parts_proven=were_parts_proven):
            return head
        if not is_new:
            # Nothing says that it is of this attempt; the next one replaces it.
            raise MultipartGone(self._key)
        raise StoredObjectMismatch(
            head, size_bytes=self._plan.size_bytes, etag=checks.multipart_etag(md5s)
        )

    def sweep(self, *, spare: Multipart) -> None:
        """Abort uploads nobody recorded: a crash or a lost answer right after create."""
        for stray in self._open_multiparts():
            # Some stores list an upload for a while after it was completed; to abort it
            # then would take its bytes from the object.
            if stray != spare:
                try:
                    self._lanes.run(partial(self._storage.abort, stray))
                except StoreFailed as error:
                    log.warning("transfer.sweep_failed", key=self._key, reason=str(error))

    def _make(self, make: Callable[[], None]) -> bool:
        """Say whether the store answered that it made the object just now."""
        try:
            self._lanes.run(make)
        except MultipartGone:
            # Completed by an earlier try whose answer was lost, or aborted: HEAD tells.
            return False
        return True

    def _is_the_file(
        self, head: ObjectHead, *, md5s: Sequence[bytes], is_new: bool, were_parts_proven: bool
    ) -> bool:
        """Whether the object that is there after it was made is what was sent."""
        if head.size_bytes != self._plan.size_bytes:
            return False
        if not head.etag_is_digest:
            return True
        if self._is_beyond_proof(head):
            if not is_new:
                return False
            if were_parts_proven:
                # It is made of them and of no others: the store has just said so.
                log.warning("transfer.etag_not_compared", key=self._key, etag=head.etag)
                return True
        return self.has_etag_of(md5s, head=head)

    def _is_beyond_proof(self, head: ObjectHead) -> bool:
        """Whether only the whole file, read again, would show what the ETag is worth, and that takes too long."""
        return (
            self._plan.is_multipart
            and not checks.is_of_parts(head.etag)
            and self._plan.size_bytes > self._read_again_at_most
        )

    def _is_open(self, multipart: Multipart | None) -> bool:
        """Whether the store lists the upload although its object is there.

        Swift does where it died within Complete: object and upload then share their
        parts, and whoever aborts the upload one day destroys the object.
        """
        return multipart is not None and multipart in self._open_multiparts()

    def _open_multiparts(self) -> list[Multipart]:
        """Return the unfinished uploads of the key, as far as the store tells."""
        try:
            return self._lanes.run(partial(self._storage.open_multiparts, self._key))
        except StoreFailed as error:
            log.warning("transfer.multiparts_not_listed", key=self._key, reason=str(error))
            return []
