"""Sends one staged file to the store and proves that it arrived."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from pipeline.storage.errors import (
    MultipartGone,
    ObjectExists,
    ObjectMissing,
    StoreFailed,
    StoreUnavailable,
)
from pipeline.storage.port import Multipart, ObjectHead, ObjectStorage, StoredPart
from pipeline.transfer import checksums
from pipeline.transfer.checkpoint import Checkpoint
from pipeline.transfer.checksums import FileCheck
from pipeline.transfer.interruptions import TransferCancelled
from pipeline.transfer.lanes import Lanes
from pipeline.transfer.parts import NO_BYTES, DigestedPart, Parts
from pipeline.transfer.plan import PartPlan
from pipeline.transfer.prefix import Prefix
from pipeline.transfer.staged import Staged
from schemas import media_types
from schemas.errors import DomainError, ErrorCode
from schemas.object_keys import ObjectKey
from schemas.settings import GIB, MIB

log = structlog.get_logger(__name__)

HEARTBEAT: Final = timedelta(seconds=1)
"""A cancelled upload is noticed within so long, and its parts are gone in as long again."""

READ_AGAIN_AT_MOST: Final = 64 * GIB
"""What an MD5 can be taken of well within a delivery, from any disk worth the name."""


class StoredObjectMismatch(DomainError):
    """The store reports another object than the one that was sent."""

    code = ErrorCode.STORED_OBJECT_MISMATCH

    def __init__(self, head: ObjectHead, *, size_bytes: int, etag: str) -> None:
        super().__init__(
            f"sent {size_bytes} bytes with ETag {etag},"
            f" but the store has {head.size_bytes} bytes with ETag {head.etag}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who is told how a transfer goes, and may stop it by raising.

    All calls come from the thread that called `send`. What they raise comes out
    of `send`; parts stay in the store for the next attempt, unless the error is
    a `DomainError` that is not retryable.
    """

    on_created: Callable[[str], None]
    """Takes the id of the multipart upload, which must be durable on return."""
    on_progress: Callable[[int, Checkpoint | None], None]
    """Takes the number of bytes that are stored so far, and what a later attempt goes on from.

    None, and whatever was kept of earlier attempts, means from the first byte.
    """
    heartbeat: Callable[[], None]
    """Called at least every `heartbeat_every`, and before anything is destroyed.

    Raises `LeaseLost` if another worker may have the upload now, and
    `TransferCancelled` if nobody wants it any more.
    """
    heartbeat_every: timedelta = HEARTBEAT


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier attempt reported."""

    multipart_id: str
    checkpoint: Checkpoint | None


@dataclass(frozen=True, slots=True)
class SentObject:
    etag: str
    sha256: str
    size_bytes: int
    part_count: int
    content_type: str


def send(
    staged: Staged,
    *,
    to: ObjectKey,
    storage: ObjectStorage,
    plan: PartPlan,
    parallel_parts: int,
    resume: Earlier | None,
    watch: Watch,
    work_dir: Path | None = None,
    read_again_at_most: int = READ_AGAIN_AT_MOST,
) -> SentObject:
    """Store a staged file as one object, and return once the store has proved to have it.

    Every byte is digested once, as it is read. An object appears only after every
    chunk had the digest it was acked with. After a failure that another attempt
    may mend, the parts stay; after any other, nothing of the upload stays in the store.

    Args:
        staged: the file and its manifest.
        to: where the object goes; the key must belong to this upload alone.
        storage: the bucket.
        plan: how to cut the file; a file of one part is sent in one request.
        parallel_parts: parts under way at once.
        resume: what an earlier attempt reported; parts it stored are not sent again,
            and those before its checkpoint are not read again.
        watch: who is told, and may stop it.
        work_dir: where parts are kept that the store cannot copy, at most
            `parallel_parts` and one at a time; the system's own by default.
        read_again_at_most: size up to which a file is read once more where the store
            answers the MD5 of a whole object made of parts.

    Raises:
        StagingMissing: the file is gone.
        StagingCorrupt: it is not what was acked.
        ReferenceMissing: the object to be copied is gone.
        ReferenceChanged: it became another one meanwhile; try again later.
        FileDigestMismatch: it is not what the client declared.
        StoredObjectMismatch: the store has something else; it was deleted.
        StoreRejected: the store refuses a request for good.
        StoreUnavailable: the store does not answer; try again later.
        StoreMisconfigured: an operator has to act first; try again later.
        MultipartGone: somebody ended the multipart upload; try again.
    """
    sending = _Sending(
        staged,
        to=to,
        storage=storage,
        plan=plan,
        parallel_parts=parallel_parts,
        watch=watch,
        resume=resume,
        work_dir=work_dir,
        read_again_at_most=read_again_at_most,
    )
    try:
        return sending.run()
    except (FileNotFoundError, ObjectMissing) as error:
        # Staging goes away once an upload is stored: an object that is there may be the proof.
        sending.clean_up(after=(gone := staged.gone()), keep_object=True)
        raise gone from error
    except DomainError as failure:
        if not failure.retryable:
            sending.clean_up(after=failure)
        raise
    finally:
        sending.close()


def discard(key: ObjectKey, *, storage: ObjectStorage, multipart_id: str | None = None) -> None:
    """Remove whatever the store has of an upload; again is no error.

    `multipart_id`, if known, spares the search from being the only hope: some
    stores do not let everybody list multipart uploads.
    """
    try:
        _abort_multiparts(key, storage=storage, multipart_id=multipart_id)
    finally:
        # Also where the store does not say what else there is: it may never do.
        storage.delete(key)


def _abort_multiparts(key: ObjectKey, *, storage: ObjectStorage, multipart_id: str | None) -> None:
    if multipart_id is not None:
        storage.abort(Multipart(key, id=multipart_id))
    for multipart in storage.open_multiparts(key):
        storage.abort(multipart)


class _Sending:
    """One call of `send`."""

    def __init__(
        self,
        staged: Staged,
        *,
        to: ObjectKey,
        storage: ObjectStorage,
        plan: PartPlan,
        parallel_parts: int,
        watch: Watch,
        resume: Earlier | None,
        work_dir: Path | None,
        read_again_at_most: int,
    ) -> None:
        self._read_again_at_most = read_again_at_most
        self._began = time.monotonic()
        self._staged = staged
        self._key = to
        self._storage = storage
        self._plan = plan
        self._watch = watch
        self._lanes = Lanes[StoredPart](
            parallel_parts,
            on_result=self._take,
            heartbeat=watch.heartbeat,
            every=watch.heartbeat_every,
        )
        self._parts = Parts(
            staged, storage=storage, work_dir=work_dir, abandoned=self._lanes.abandoned
        )
        self._content_type = media_types.UNKNOWN
        self._multipart = None if resume is None else Multipart(to, id=resume.multipart_id)
        self._before = None if resume is None else resume.checkpoint
        self._prefix = Prefix(plan, version=staged.version)
        self._stored: list[StoredPart] = []
        self._resumed = 0
        self._bytes_done = 0

    def close(self) -> None:
        self._lanes.settle()
        self._parts.close()

    def run(self) -> SentObject:
        # Before anything is asked of the store: a manifest with a hole will not do later either.
        self._staged.check()
        first_bytes = self._lanes.run(self._first_bytes)
        self._content_type = media_types.of_object(
            media_types.sniff(first_bytes), declared=self._staged.content_type
        )
        return self._by_parts() if self._plan.is_multipart else self._at_once()

    def clean_up(self, *, after: DomainError, keep_object: bool = False) -> None:
        """Leave nothing in the store, unless another worker may be using it."""
        if isinstance(after, TransferCancelled) and self._multipart is not None:
            # At once: parts under way may take their time to end.
            with suppress(StoreFailed):
                self._storage.abort(self._multipart)
        # A part that landed after the abort would stay.
        self._lanes.settle()
        if isinstance(after, TransferCancelled):
            # Nobody can have taken over what nobody wants.
            self._remove(keep_object=keep_object, heartbeat=lambda: None)
        else:
            self._remove(keep_object=keep_object, heartbeat=self._beat_unless_cancelled)

    def _remove(self, *, keep_object: bool, heartbeat: Callable[[], None]) -> None:
        """Remove what there is, as long as the heart beats.

        A worker that was asleep, or whose store was, must not delete what its successor stored.
        """
        multipart_id = self._multipart.id if self._multipart else None
        steps = [
            partial(_abort_multiparts, self._key, storage=self._storage, multipart_id=multipart_id),
            *(() if keep_object else (partial(self._storage.delete, self._key),)),
        ]
        with Lanes[None](
            1, on_result=lambda _: None, heartbeat=heartbeat, every=self._watch.heartbeat_every
        ) as removing:
            try:
                for step in steps:
                    heartbeat()
                    removing.run(step)
            except StoreFailed as error:
                log.warning("transfer.clean_up_failed", key=self._key, reason=str(error))

    def _beat_unless_cancelled(self) -> None:
        with suppress(TransferCancelled):
            self._watch.heartbeat()

    def _first_bytes(self) -> bytes:
        wanted = min(media_types.SNIFFED_BYTES, self._staged.size_bytes)
        return b"".join(
            bytes(block)
            for block in self._staged.blocks(0, wanted, abandoned=self._lanes.abandoned)
        )

    def _at_once(self) -> SentObject:
        """Store a file of at most one part: a crash leaves the whole object or nothing."""
        if self._multipart is not None:
            # An earlier attempt cut the file smaller.
            self._lanes.run(partial(self._storage.abort, self._multipart))
            self._multipart = None
        check = self._staged.check()
        digested = self._read_through(check, to_store=True)
        sha256 = check.finish(declared=self._staged.sha256)
        part = digested[0] if digested else None
        self._lanes.run(self._staged.confirm)
        head = self._create(
            partial(self._parts.put, part, to=self._key, content_type=self._content_type),
            md5s=[part.md5 if part else NO_BYTES.md5],
        )
        self._count(self._staged.size_bytes)
        return self._sent(head, sha256=sha256)

    def _by_parts(self) -> SentObject:
        """Store a file part by part, going on where an earlier attempt stopped."""
        stored: Mapping[int, StoredPart] | None = None
        if self._multipart is not None:
            stored = self._stored_parts(self._multipart)
            if stored is None and (sent := self._sent_before()) is not None:
                return sent
        if self._multipart is None or stored is None:
            self._multipart, stored = self._begin(), {}
        sent = self._send_parts(self._multipart, stored=stored)
        self._sweep()
        return sent

    def _stored_parts(self, multipart: Multipart) -> dict[int, StoredPart] | None:
        """Return what an earlier attempt stored, or None if its upload is of no use."""
        try:
            parts = self._lanes.run(partial(self._storage.list_parts, multipart))
        except MultipartGone:
            return None
        if all(self._plan.has_part(number=p.number, size_bytes=p.size_bytes) for p in parts):
            return {part.number: part for part in parts}
        # Cut by another plan: parts that Complete does not name would stay as orphans.
        self._lanes.run(partial(self._storage.abort, multipart))
        return None

    def _sent_before(self) -> SentObject | None:
        """Return the object if an earlier attempt completed it and died before saying so."""
        head = self._head()
        if (
            head is None
            or head.size_bytes != self._staged.size_bytes
            or not head.etag_is_digest
            or self._is_beyond_proof(head)
        ):
            return None
        check = self._staged.check()
        if self._before is None or not self._prefix.was_whole(
            self._before, etag=head.etag, check=check
        ):
            digested = self._read_through(check, to_store=False)
            if not self._has_our_etag(head, md5s=[part.md5 for part in digested]):
                return None
        sha256 = check.finish(declared=self._staged.sha256)
        self._resumed = len(self._plan)
        self._count(self._staged.size_bytes)
        return self._sent(head, sha256=sha256)

    def _begin(self) -> Multipart:
        multipart = self._lanes.run(
            partial(self._storage.create_multipart, self._key, content_type=self._content_type)
        )
        try:
            self._watch.on_created(multipart.id)
        except BaseException:
            # Nobody would ever find it again.
            with suppress(StoreFailed):
                self._storage.abort(multipart)
            raise
        return multipart

    def _send_parts(self, multipart: Multipart, *, stored: Mapping[int, StoredPart]) -> SentObject:
        check = self._staged.check()
        md5s = self._take_up(check, stored=stored)
        for part in islice(self._plan, len(md5s), None):
            self._lanes.make_room()
            found = stored.get(part.number)
            digested = self._lanes.run(
                partial(self._parts.read, part, check=check, to_store=found is None)
            )
            md5s.append(digested.md5)
            self._prefix.digested(part, state=check.state())
            if found is not None and found.etag == digested.md5.hex():
                self._resumed += 1
                self._take(found)
            else:
                self._lanes.start(partial(self._parts.store, digested, multipart=multipart))
        sha256 = check.finish(declared=self._staged.sha256)
        self._lanes.drain()
        self._lanes.run(self._staged.confirm)
        parts = sorted(self._stored, key=lambda part: part.number)
        # The last checkpoint is of no use to anybody who does not have it once the upload is gone.
        self._watch.heartbeat()
        head = self._create(
            partial(self._storage.complete, multipart, parts=parts),
            md5s=md5s,
        )
        return self._sent(head, sha256=sha256)

    def _take_up(self, check: FileCheck, *, stored: Mapping[int, StoredPart]) -> list[bytes]:
        """Go on behind the checkpoint of an earlier attempt; return the MD5s of the parts there.

        They are the parts' ETags, and still what they were when the parts were stored.
        """
        if self._before is None or not self._prefix.take_up(
            self._before, stored=stored, check=check
        ):
            return []
        behind = [stored[number] for number in range(1, self._prefix.parts + 1)]
        self._resumed = len(behind)
        self._stored.extend(behind)
        log.info("transfer.taken_up", parts=len(behind), bytes=self._before.digested_bytes)
        self._count(self._before.digested_bytes)
        return [bytes.fromhex(part.etag) for part in behind]

    def _sweep(self) -> None:
        """Abort uploads nobody recorded: a crash or a lost answer right after create."""
        for stray in self._open_multiparts():
            # Some stores list an upload for a while after it was completed; to abort it
            # then would take its bytes from the object.
            if stray != self._multipart:
                try:
                    self._lanes.run(partial(self._storage.abort, stray))
                except StoreFailed as error:
                    log.warning("transfer.sweep_failed", key=self._key, reason=str(error))

    def _open_multiparts(self) -> list[Multipart]:
        """Return the unfinished uploads of the key, as far as the store tells."""
        try:
            return self._lanes.run(partial(self._storage.open_multiparts, self._key))
        except StoreFailed as error:
            log.warning("transfer.multiparts_not_listed", key=self._key, reason=str(error))
            return []

    def _create(self, make: Callable[[], None], *, md5s: Sequence[bytes]) -> ObjectHead:
        """Make the object and return what the store proves to have.

        Raises:
            ObjectExists: again and again there is another one.
            StoredObjectMismatch: there is one with other bytes.
            MultipartGone: it has to be sent anew.
        """
        try:
            is_new = self._make(make)
        except ObjectExists:
            found = self._head()
            is_ours = found is not None and self._is_proven(found, md5s=md5s)
            if found is not None and is_ours and not self._is_still_open():
                return found
            # The key is this upload's alone: it is what an earlier attempt left.
            log.warning("transfer.leftover_removed", key=self._key)
            self._watch.heartbeat()
            self._lanes.run(partial(self._storage.delete, self._key))
            if is_ours and self._multipart is not None:
                self._lanes.run(partial(self._storage.abort, self._multipart))
                raise MultipartGone(self._key) from None
            is_new = self._make(make)
        head = self._head()
        if head is None:
            raise StoreUnavailable("head", reason="the object just stored is not to be seen")
        if head.size_bytes != self._staged.size_bytes or (
            head.etag_is_digest
            # Its parts were taken with their MD5s, and it is made of no others.
            and not (is_new and self._is_beyond_proof(head))
            and not self._has_our_etag(head, md5s=md5s)
        ):
            raise StoredObjectMismatch(
                head, size_bytes=self._staged.size_bytes, etag=checksums.multipart_etag(md5s)
            )
        return head

    def _is_still_open(self) -> bool:
        """Whether the store lists the upload although its object is there.

        Swift does where it died within Complete: object and upload then share their
        parts, and whoever aborts the upload one day destroys the object.
        """
        return self._multipart is not None and self._multipart in self._open_multiparts()

    def _make(self, make: Callable[[], None]) -> bool:
        """Say whether the store answered that it made the object just now."""
        try:
            self._lanes.run(make)
        except MultipartGone:
            # Completed by an earlier try whose answer was lost, or aborted: HEAD tells.
            return False
        return True

    def _is_proven(self, head: ObjectHead, *, md5s: Sequence[bytes]) -> bool:
        return (
            head.size_bytes == self._staged.size_bytes
            and head.etag_is_digest
            and not self._is_beyond_proof(head)
            and self._has_our_etag(head, md5s=md5s)
        )

    def _is_beyond_proof(self, head: ObjectHead) -> bool:
        """Whether only reading the whole file again would show what the ETag is worth, and that takes too long."""
        return (
            self._plan.is_multipart
            and not checksums.is_of_parts(head.etag)
            and self._staged.size_bytes > self._read_again_at_most
        )

    def _has_our_etag(self, head: ObjectHead, *, md5s: Sequence[bytes]) -> bool:
        return checksums.etag_matches(
            head.etag,
            part_md5s=md5s,
            file_md5=partial(self._lanes.run, self._parts.md5_of_file),
        )

    def _head(self) -> ObjectHead | None:
        try:
            return self._lanes.run(partial(self._storage.head, self._key))
        except ObjectMissing:
            return None

    def _read_through(self, check: FileCheck, *, to_store: bool) -> list[DigestedPart]:
        """Digest the whole file without sending any of it."""
        return [
            self._lanes.run(partial(self._parts.read, part, check=check, to_store=to_store))
            for part in self._plan
        ]

    def _take(self, part: StoredPart) -> None:
        self._stored.append(part)
        self._prefix.stored(part)
        self._count(part.size_bytes)

    def _count(self, size_bytes: int) -> None:
        self._bytes_done += size_bytes
        self._watch.on_progress(self._bytes_done, self._prefix.checkpoint)

    def _sent(self, head: ObjectHead, *, sha256: str) -> SentObject:
        sent = SentObject(
            etag=head.etag,
            sha256=sha256,
            size_bytes=head.size_bytes,
            part_count=len(self._plan),
            content_type=self._content_type,
        )
        seconds = time.monotonic() - self._began
        log.info(
            "transfer.object_stored",
            key=self._key,
            source=self._staged.kind,
            size_bytes=sent.size_bytes,
            parts=sent.part_count,
            parts_resumed=self._resumed,
            seconds=round(seconds, 3),
            mib_per_second=round(sent.size_bytes / MIB / seconds, 1) if seconds else None,
            etag=sent.etag,
        )
        return sent
