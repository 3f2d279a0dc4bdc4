"""Sends one staged file to the store and proves that it arrived."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from pipeline.storage.errors import MultipartGone, ObjectMissing, StoreFailed, StoreUnavailable
from pipeline.storage.port import Body, Multipart, ObjectHead, ObjectStorage, StoredPart
from pipeline.transfer import checksums, content_type
from pipeline.transfer.checksums import FileCheck
from pipeline.transfer.interruptions import TransferCancelled
from pipeline.transfer.lanes import Lanes
from pipeline.transfer.plan import PartPlan
from pipeline.transfer.staged import StagedFile
from schemas.errors import DomainError, ErrorCode
from schemas.object_keys import ObjectKey

log = structlog.get_logger(__name__)

NO_BYTES: Final = Body(b"", md5=hashlib.md5(b"", usedforsecurity=False).digest())


class StagingMissing(DomainError):
    """The staged file is not there."""

    code = ErrorCode.STAGING_MISSING

    def __init__(self, *, size_bytes: int) -> None:
        super().__init__(f"the staged file of {size_bytes} bytes is gone")


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
    on_progress: Callable[[int], None]
    """Takes the number of bytes that are stored so far."""
    heartbeat: Callable[[], None]
    """Called at least every `heartbeat_every`, and before anything is destroyed.

    Raises `LeaseLost` if another worker may have the upload now, and
    `TransferCancelled` if nobody wants it any more.
    """
    heartbeat_every: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class SentObject:
    etag: str
    sha256: str
    size_bytes: int
    part_count: int
    content_type: str


def send(
    staged: StagedFile,
    *,
    to: ObjectKey,
    storage: ObjectStorage,
    plan: PartPlan,
    parallel_parts: int,
    resume: str | None,
    watch: Watch,
) -> SentObject:
    """Store a staged file as one object, and return once the store has proved to have it.

    The file is read once. An object appears only after every chunk had the
    digest it was acked with. After a failure that another attempt may mend, the
    parts stay; after any other, nothing of the upload stays in the store.

    Args:
        staged: the file and its manifest.
        to: where the object goes; the key must belong to this upload alone.
        storage: the bucket.
        plan: how to cut the file; a file of one part is sent in one request.
        parallel_parts: parts under way at once.
        resume: id of the multipart upload that an earlier attempt reported; parts
            it stored are not sent again.
        watch: who is told, and may stop it.

    Raises:
        StagingMissing: the file is gone.
        StagingCorrupt: it is not what was acked.
        FileDigestMismatch: it is not what the client declared.
        StoredObjectMismatch: the store has something else; it was deleted.
        StoreRejected: the store refuses a request for good.
        StoreUnavailable: the store does not answer; try again later.
        StoreMisconfigured: an operator has to act first; try again later.
        MultipartGone: somebody ended the multipart upload; try again.
    """
    with Lanes[StoredPart](
        parallel_parts, heartbeat=watch.heartbeat, every=watch.heartbeat_every
    ) as lanes:
        sending = _Sending(
            staged, to=to, storage=storage, plan=plan, lanes=lanes, watch=watch, resume=resume
        )
        try:
            return sending.run()
        except FileNotFoundError as error:
            sending.clean_up(after=(missing := StagingMissing(size_bytes=staged.size_bytes)))
            raise missing from error
        except DomainError as failure:
            if not failure.retryable:
                sending.clean_up(after=failure)
            raise


def discard(key: ObjectKey, *, storage: ObjectStorage, multipart_id: str | None = None) -> None:
    """Remove whatever the store has of an upload; again is no error.

    `multipart_id`, if known, spares the search from being the only hope: some
    stores do not let everybody list multipart uploads.
    """
    _abort_multiparts(key, storage=storage, multipart_id=multipart_id)
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
        staged: StagedFile,
        *,
        to: ObjectKey,
        storage: ObjectStorage,
        plan: PartPlan,
        lanes: Lanes[StoredPart],
        watch: Watch,
        resume: str | None,
    ) -> None:
        self._staged = staged
        self._key = to
        self._storage = storage
        self._plan = plan
        self._lanes = lanes
        self._watch = watch
        self._content_type = content_type.UNKNOWN
        self._multipart = None if resume is None else Multipart(to, id=resume)
        self._bytes_done = 0

    def run(self) -> SentObject:
        first_bytes = self._staged.first_bytes(content_type.SNIFFED_BYTES)
        self._content_type = content_type.of_object(
            content_type.sniff(first_bytes), declared=self._staged.content_type
        )
        return self._by_parts() if self._plan.is_multipart else self._at_once()

    def clean_up(self, *, after: DomainError) -> None:
        """Leave nothing in the store, unless another worker may be using it."""
        # A part that landed after the abort would stay.
        self._lanes.settle()
        if not isinstance(after, TransferCancelled):
            # A worker that was asleep must not delete what its successor stored.
            with suppress(TransferCancelled):
                self._watch.heartbeat()
        # Staging goes away once an upload is stored: an object that is there may be the proof.
        remove = _abort_multiparts if isinstance(after, StagingMissing) else discard
        multipart_id = self._multipart.id if self._multipart else None
        try:
            remove(self._key, storage=self._storage, multipart_id=multipart_id)
        except StoreFailed as error:
            log.warning("transfer.clean_up_failed", key=self._key, reason=str(error))

    def _at_once(self) -> SentObject:
        """Store a file of at most one part: a crash leaves the whole object or nothing."""
        if self._multipart is not None:
            # An earlier attempt cut the file smaller.
            self._lanes.run(partial(self._storage.abort, self._multipart))
        bodies, sha256 = self._read_through()
        body = bodies[0] if bodies else NO_BYTES
        self._lanes.run(
            partial(
                self._storage.put,
                self._key,
                body=body,
                content_type=self._content_type,
                abandoned=self._lanes.abandoned,
            )
        )
        self._count(self._staged.size_bytes)
        return self._proven(sha256, md5s=[body.md5])

    def _by_parts(self) -> SentObject:
        """Store a file part by part, going on where an earlier attempt stopped."""
        check = self._check()
        stored: Mapping[int, StoredPart] | None = None
        if self._multipart is not None:
            stored = self._stored_parts(self._multipart)
            if stored is None and (sent := self._sent_before()) is not None:
                return sent
        if self._multipart is None or stored is None:
            self._multipart, stored = self._begin(), {}
        sent = self._send_parts(self._multipart, check=check, stored=stored)
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
        if head is None or head.size_bytes != self._staged.size_bytes or not head.etag_is_digest:
            return None
        bodies, sha256 = self._read_through()
        if not self._has_our_etag(head, md5s=[body.md5 for body in bodies]):
            return None
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

    def _send_parts(
        self, multipart: Multipart, *, check: FileCheck, stored: Mapping[int, StoredPart]
    ) -> SentObject:
        lanes = self._lanes
        md5s: list[bytes] = []
        parts: list[StoredPart] = []
        for part, body in self._staged.bodies(self._plan, check=check, pause=lanes.beat):
            md5s.append(body.md5)
            kept = stored.get(part.number)
            if kept is not None and kept.etag == body.md5.hex():
                parts.append(kept)
                self._count(kept.size_bytes)
                continue
            while lanes.are_full:
                parts += self._counted(lanes.next_finished())
            lanes.start(
                partial(
                    self._storage.upload_part,
                    multipart,
                    number=part.number,
                    body=body,
                    abandoned=lanes.abandoned,
                )
            )
            parts += self._counted(lanes.finished())
        sha256 = check.finish(declared=self._staged.sha256)
        while lanes.are_busy:
            parts += self._counted(lanes.next_finished())
        parts.sort(key=lambda part: part.number)
        # Gone means completed by an earlier try whose answer was lost, or aborted: HEAD tells.
        with suppress(MultipartGone):
            lanes.run(partial(self._storage.complete, multipart, parts=parts))
        return self._proven(sha256, md5s=md5s)

    def _sweep(self) -> None:
        """Abort uploads nobody recorded: a crash or a lost answer right after create."""
        try:
            for stray in self._lanes.run(partial(self._storage.open_multiparts, self._key)):
                self._lanes.run(partial(self._storage.abort, stray))
        except StoreFailed as error:
            log.warning("transfer.sweep_failed", key=self._key, reason=str(error))

    def _proven(self, sha256: str, *, md5s: Sequence[bytes]) -> SentObject:
        head = self._head()
        if head is None:
            raise StoreUnavailable("head", reason="the object just stored is not to be seen")
        same_size = head.size_bytes == self._staged.size_bytes
        if not same_size or (head.etag_is_digest and not self._has_our_etag(head, md5s=md5s)):
            raise StoredObjectMismatch(
                head,
                size_bytes=self._staged.size_bytes,
                etag=checksums.multipart_etag(md5s),
            )
        return self._sent(head, sha256=sha256)

    def _sent(self, head: ObjectHead, *, sha256: str) -> SentObject:
        sent = SentObject(
            etag=head.etag,
            sha256=sha256,
            size_bytes=head.size_bytes,
            part_count=len(self._plan),
            content_type=self._content_type,
        )
        log.info(
            "transfer.object_stored",
            key=self._key,
            size_bytes=sent.size_bytes,
            parts=sent.part_count,
            etag=sent.etag,
        )
        return sent

    def _head(self) -> ObjectHead | None:
        try:
            return self._lanes.run(partial(self._storage.head, self._key))
        except ObjectMissing:
            return None

    def _has_our_etag(self, head: ObjectHead, *, md5s: Sequence[bytes]) -> bool:
        return checksums.etag_matches(
            head.etag,
            part_md5s=md5s,
            file_md5=partial(self._staged.md5, pause=self._lanes.beat),
        )

    def _check(self) -> FileCheck:
        return FileCheck(
            self._staged.chunks,
            chunk_size=self._staged.chunk_size,
            size_bytes=self._staged.size_bytes,
        )

    def _read_through(self) -> tuple[list[Body], str]:
        """Digest the whole file without sending any of it."""
        check = self._check()
        bodies = self._staged.bodies(self._plan, check=check, pause=self._lanes.beat)
        return [body for _, body in bodies], check.finish(declared=self._staged.sha256)

    def _counted(self, parts: Sequence[StoredPart]) -> Sequence[StoredPart]:
        for part in parts:
            log.debug("transfer.part_stored", key=self._key, part=part.number)
            self._count(part.size_bytes)
        return parts

    def _count(self, size_bytes: int) -> None:
        self._bytes_done += size_bytes
        self._watch.on_progress(self._bytes_done)
