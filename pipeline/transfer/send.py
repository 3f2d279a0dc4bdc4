"""Sends one staged file to the store and proves that it arrived."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from pipeline.storage.errors import MultipartGone, ObjectMissing, StoreFailed
from pipeline.storage.port import Multipart, ObjectHead, ObjectStorage, StoredPart
from pipeline.transfer import removal
from pipeline.transfer.checkpoint import Checkpoint
from pipeline.transfer.checks import FileCheck
from pipeline.transfer.destination import Destination
from pipeline.transfer.errors import TransferCancelled
from pipeline.transfer.listener import TransferListener
from pipeline.transfer.part_pool import PartUploadPool
from pipeline.transfer.parts import NO_BYTES, DigestedPart, Parts
from pipeline.transfer.plan import PartPlan
from pipeline.transfer.resume import ResumeState
from pipeline.transfer.sources.staged_file import Source
from schemas.errors import DomainError
from schemas.object_keys import ObjectKey
from schemas.policy import media_types
from schemas.settings import GIB, MIB

log = structlog.stdlib.get_logger(__name__)

READ_AGAIN_AT_MOST: Final = 64 * GIB
"""What an MD5 can be taken of well within a delivery, from any disk worth the name."""


@dataclass(frozen=True, slots=True)
class PreviousAttempt:
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


def send_file(
    staged: Source,
    *,
    to: ObjectKey,
    storage: ObjectStorage,
    plan: PartPlan,
    parallel_parts: int,
    resume: PreviousAttempt | None,
    watch: TransferListener,
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
        PartReplaced: somebody sent other bytes meanwhile; try again.
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


class _Sending:
    """One call of `send`."""

    def __init__(
        self,
        staged: Source,
        *,
        to: ObjectKey,
        storage: ObjectStorage,
        plan: PartPlan,
        parallel_parts: int,
        watch: TransferListener,
        resume: PreviousAttempt | None,
        work_dir: Path | None,
        read_again_at_most: int,
    ) -> None:
        self._began = time.monotonic()
        self._staged = staged
        self._key = to
        self._storage = storage
        self._plan = plan
        self._watch = watch
        self._lanes = PartUploadPool[StoredPart](
            parallel_parts,
            on_result=self._take,
            heartbeat=watch.heartbeat,
            every=watch.heartbeat_every,
        )
        self._parts = Parts(
            staged, storage=storage, work_dir=work_dir, abandoned=self._lanes.abandoned
        )
        self._destination = Destination(
            to,
            storage=storage,
            plan=plan,
            lanes=self._lanes,
            md5_of_file=self._parts.md5_of_file,
            read_again_at_most=read_again_at_most,
        )
        self._content_type = media_types.UNKNOWN
        self._multipart = None if resume is None else Multipart(to, id=resume.multipart_id)
        self._before = None if resume is None else resume.checkpoint
        self._prefix = ResumeState(plan, version=staged.version)
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
        removal.discard_while(
            # Nobody can have taken over what nobody wants.
            (lambda: None) if isinstance(after, TransferCancelled) else self._beat_unless_cancelled,
            every=self._watch.heartbeat_every,
            key=self._key,
            storage=self._storage,
            multipart_id=self._multipart.id if self._multipart else None,
            keep_object=keep_object,
        )

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
        head = self._destination.create(
            partial(self._parts.put, part, to=self._key, content_type=self._content_type),
            of=None,
            md5s=[part.md5 if part else NO_BYTES.md5],
            were_parts_proven=False,
            before_deleting=self._watch.heartbeat,
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
        self._destination.sweep(spare=self._multipart)
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
        head = self._destination.look()
        if head is None or not self._destination.could_prove(head):
            return None
        check = self._staged.check()
        if self._before is None or not self._prefix.was_whole(
            self._before, etag=head.etag, check=check
        ):
            digested = self._read_through(check, to_store=False)
            if not self._destination.has_etag_of([part.md5 for part in digested], head=head):
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
            self._prefix.digested(part, md5=digested.md5, state=check.state())
            if found is not None and found.etag == digested.md5.hex():
                self._resumed += 1
                self._take(found)
            else:
                self._lanes.start(partial(self._parts.store, digested, multipart=multipart))
        sha256 = check.finish(declared=self._staged.sha256)
        self._lanes.drain()
        self._lanes.run(self._staged.confirm)
        parts = sorted(self._stored, key=lambda part: part.number)
        # Once the upload is gone, only the checkpoint after the last byte spares reading it all.
        self._watch.heartbeat()
        head = self._destination.create(
            partial(self._storage.complete, multipart, parts=parts),
            of=multipart,
            md5s=md5s,
            were_parts_proven=self._prefix.is_whole,
            before_deleting=self._watch.heartbeat,
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
