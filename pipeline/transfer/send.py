"""Sends one file to the store and verifies the stored object."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from pipeline.steps.call_pool import HEARTBEAT_INTERVAL, CallPool
from pipeline.steps.errors import StepCancelled
from pipeline.storage.errors import MultipartGone, ObjectMissing
from pipeline.storage.plan import PartPlan
from pipeline.storage.port import Multipart, ObjectHead, ObjectStorage, StoredPart
from pipeline.transfer import cleanup
from pipeline.transfer.checks import FileCheck
from pipeline.transfer.destination import Destination
from pipeline.transfer.parts import NO_BYTES, DigestedPart, Parts
from pipeline.transfer.resume import Checkpoint, PreviousAttempt, ResumeState
from pipeline.transfer.sources.source import Source
from schemas.errors import DomainError, StoreFailed
from schemas.object_keys import ObjectKey
from schemas.policy import media_types
from schemas.settings import GIB, MIB

log = structlog.stdlib.get_logger(__name__)

REREAD_MAX_BYTES: Final = 64 * GIB
"""A disk reads so much well within one delivery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferListener:
    """Follows a transfer, and stops it by raising an error.

    The thread that runs the transfer makes every call, and raises every error of a call.
    The parts stay in the store for the next attempt unless the error is a `DomainError`
    that is not retryable.
    """

    on_created: Callable[[str], None]
    """Takes the id of the multipart upload, which must be durable on return."""
    on_progress: Callable[[int, Checkpoint | None], None]
    """Takes the number of bytes stored so far, and the checkpoint for the next attempt.

    None, also after an earlier checkpoint, makes the next attempt read from the first byte.
    """
    heartbeat: Callable[[], None]
    """Called at least every `heartbeat_interval`, and before anything is deleted.

    Raises `LeaseLost` if another worker may have the transfer, and `StepCancelled`
    if the client cancelled the upload.
    """
    heartbeat_interval: timedelta = HEARTBEAT_INTERVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class SentObject:
    """The object as the store confirmed it."""

    etag: str
    sha256: str
    size_bytes: int
    content_type: str


class FileTransfer:
    """Stores one file as one object.

    Every byte is digested once, when it is read. The object appears only after every chunk
    had the digest that it was acknowledged with.
    """

    def __init__(
        self,
        source: Source,
        *,
        to: ObjectKey,
        storage: ObjectStorage,
        plan: PartPlan,
        parallel_parts: int,
        previous: PreviousAttempt | None,
        listener: TransferListener,
        work_dir: Path | None = None,
        reread_max_bytes: int = REREAD_MAX_BYTES,
    ) -> None:
        """Prepare the transfer; nothing is read or sent yet.

        Args:
            source: the file and its manifest.
            to: the key of the object; no other upload writes to it.
            storage: the bucket.
            plan: the parts; a file of one part is sent in one request.
            parallel_parts: number of parts sent at once.
            previous: what an earlier attempt recorded; its parts are not sent again, and
                the parts before its checkpoint are not read again.
            listener: follows the transfer and may stop it.
            work_dir: directory for parts that the store cannot copy, at most
                `parallel_parts` and one more; the system's temporary directory by default.
            reread_max_bytes: largest file that is read once more if the store returns the
                MD5 of the whole object as the ETag of a multipart object.
        """
        self._began = time.monotonic()
        self._source = source
        self._key = to
        self._storage = storage
        self._plan = plan
        self._listener = listener
        self._pool = CallPool[StoredPart](
            parallel_parts,
            on_result=self._part_stored,
            heartbeat=listener.heartbeat,
            heartbeat_interval=listener.heartbeat_interval,
        )
        self._parts = Parts(
            source, storage=storage, work_dir=work_dir, abandoned=self._pool.abandoned
        )
        self._destination = Destination(
            to,
            storage=storage,
            plan=plan,
            pool=self._pool,
            md5_of_file=self._parts.md5_of_file,
            reread_max_bytes=reread_max_bytes,
        )
        self._content_type = media_types.UNKNOWN
        self._multipart = None if previous is None else Multipart(to, id=previous.multipart_id)
        self._checkpoint = None if previous is None else previous.checkpoint
        self._resume = ResumeState(plan, version=source.version)
        self._stored: list[StoredPart] = []
        self._resumed_parts = 0
        self._bytes_done = 0

    def run(self) -> SentObject:
        """Send the file, and return once the stored object is verified.

        After a retryable failure the parts stay in the store; after any other failure everything
        that was sent is deleted.

        Raises:
            StagingMissing, ReferenceMissing: the source is gone.
            StagingCorrupt: the source differs from the acknowledged chunks.
            ReferenceChanged: the referenced object was replaced meanwhile; retryable.
            FileDigestMismatch: the file differs from what the client declared.
            StoredObjectMismatch: the store had another object, which was deleted.
            StoreRejected: the store refuses a request; a repetition changes nothing.
            StoreUnavailable, StoreMisconfigured: the store serves no requests now; retryable.
            MultipartGone: the multipart upload was ended elsewhere; retryable.
            PartReplaced: a part was replaced elsewhere; retryable.
        """
        try:
            return self._send()
        except (FileNotFoundError, ObjectMissing) as error:
            # Staged bytes are deleted once an upload is stored, so the object of a stored upload
            # may exist.
            self._clean_up(after=(missing := self._source.missing()), keep_object=True)
            raise missing from error
        except DomainError as failure:
            if not failure.retryable:
                self._clean_up(after=failure)
            raise
        finally:
            self._pool.stop()
            self._parts.close()

    def _send(self) -> SentObject:
        # Before any request: an incomplete manifest is a final failure.
        self._source.check()
        first_bytes = self._pool.run(self._first_bytes)
        self._content_type = media_types.of_object(
            media_types.sniff(first_bytes), declared=self._source.content_type
        )
        return self._send_in_parts() if self._plan.is_multipart else self._send_whole()

    def _clean_up(self, *, after: DomainError, keep_object: bool = False) -> None:
        """Delete everything of the upload in the store, unless another worker may be using it."""
        if isinstance(after, StepCancelled) and self._multipart is not None:
            # Abort at once, because running parts may take long to end.
            with suppress(StoreFailed):
                self._storage.abort(self._multipart)
        # A part that arrived after the abort would stay.
        self._pool.stop()
        cleanup.delete_object_while_leased(
            # No other worker takes over a cancelled upload.
            (lambda: None) if isinstance(after, StepCancelled) else self._beat_unless_cancelled,
            heartbeat_interval=self._listener.heartbeat_interval,
            key=self._key,
            storage=self._storage,
            multipart_id=self._multipart.id if self._multipart else None,
            keep_object=keep_object,
        )

    def _beat_unless_cancelled(self) -> None:
        with suppress(StepCancelled):
            self._listener.heartbeat()

    def _first_bytes(self) -> bytes:
        size_bytes = min(media_types.SNIFFED_BYTES, self._source.size_bytes)
        return b"".join(self._source.blocks(0, size_bytes, abandoned=self._pool.abandoned))

    def _send_whole(self) -> SentObject:
        """Send a file of at most one part: a crash leaves the whole object or nothing."""
        if self._multipart is not None:
            # An earlier attempt had a plan with smaller parts.
            self._pool.run(partial(self._storage.abort, self._multipart))
            self._multipart = None
        check = self._source.check()
        digested = self._read_all(check, to_store=True)
        sha256 = check.finish(declared=self._source.sha256)
        part = digested[0] if digested else None
        self._pool.run(self._source.confirm)
        head = self._destination.create(
            partial(self._parts.put, part, to=self._key, content_type=self._content_type),
            multipart=None,
            part_md5s=[part.md5 if part else NO_BYTES.md5],
            parts_are_verified=False,
            before_deleting=self._listener.heartbeat,
        )
        self._report(self._source.size_bytes)
        return self._sent(head, sha256=sha256)

    def _send_in_parts(self) -> SentObject:
        """Send a file part by part, continuing an earlier attempt."""
        stored: Mapping[int, StoredPart] | None = None
        if self._multipart is not None:
            stored = self._usable_parts(self._multipart)
            if stored is None and (sent := self._sent_before()) is not None:
                return sent
        if self._multipart is None or stored is None:
            self._multipart, stored = self._create_multipart(), {}
        sent = self._send_parts(self._multipart, stored=stored)
        self._destination.abort_others(keep=self._multipart)
        return sent

    def _usable_parts(self, multipart: Multipart) -> dict[int, StoredPart] | None:
        """Return the parts of an earlier attempt; None if its multipart upload is not usable."""
        try:
            parts = self._pool.run(partial(self._storage.list_parts, multipart))
        except MultipartGone:
            return None
        if all(self._plan.has_part(number=p.number, size_bytes=p.size_bytes) for p in parts):
            return {part.number: part for part in parts}
        # Parts of another plan would stay as orphans, because Complete does not name them.
        self._pool.run(partial(self._storage.abort, multipart))
        return None

    def _sent_before(self) -> SentObject | None:
        """Return the object if an earlier attempt completed it and died before it was recorded."""
        head = self._destination.head()
        if head is None or not self._destination.is_verifiable(head):
            return None
        check = self._source.check()
        if self._checkpoint is None or not self._resume.resume_completed(
            self._checkpoint, etag=head.etag, check=check
        ):
            digested = self._read_all(check, to_store=False)
            if not self._destination.is_made_of([part.md5 for part in digested], head=head):
                return None
        sha256 = check.finish(declared=self._source.sha256)
        self._resumed_parts = len(self._plan)
        self._report(self._source.size_bytes)
        return self._sent(head, sha256=sha256)

    def _create_multipart(self) -> Multipart:
        multipart = self._pool.run(
            partial(self._storage.create_multipart, self._key, content_type=self._content_type)
        )
        try:
            self._listener.on_created(multipart.id)
        except BaseException:
            # An unrecorded multipart upload would stay until a sweep.
            with suppress(StoreFailed):
                self._storage.abort(multipart)
            raise
        return multipart

    def _send_parts(self, multipart: Multipart, *, stored: Mapping[int, StoredPart]) -> SentObject:
        check = self._source.check()
        md5s = self._resume_parts(check, stored=stored)
        for part in islice(self._plan, len(md5s), None):
            self._pool.wait_for_room()
            found = stored.get(part.number)
            digested = self._pool.run(
                partial(self._parts.read, part, check=check, to_store=found is None)
            )
            md5s.append(digested.md5)
            self._resume.digested(part, md5=digested.md5, state=check.state())
            if found is not None and found.etag == digested.md5.hex():
                self._resumed_parts += 1
                self._part_stored(found)
            else:
                self._pool.start(partial(self._parts.store, digested, multipart=multipart))
        sha256 = check.finish(declared=self._source.sha256)
        self._pool.drain()
        self._pool.run(self._source.confirm)
        parts = sorted(self._stored, key=lambda part: part.number)
        # Records the last checkpoint. Once the multipart upload is completed, only this
        # checkpoint spares the next attempt from reading the whole file.
        self._listener.heartbeat()
        head = self._destination.create(
            partial(self._storage.complete, multipart, parts=parts),
            multipart=multipart,
            part_md5s=md5s,
            parts_are_verified=self._resume.is_complete,
            before_deleting=self._listener.heartbeat,
        )
        return self._sent(head, sha256=sha256)

    def _resume_parts(self, check: FileCheck, *, stored: Mapping[int, StoredPart]) -> list[bytes]:
        """Continue after the checkpoint of an earlier attempt; return the MD5s of the parts before it.

        The ETags of these parts are their MD5s, and have not changed since the parts were stored.
        """
        if self._checkpoint is None or not self._resume.resume(
            self._checkpoint, stored=stored, check=check
        ):
            return []
        parts = [stored[number] for number in range(1, self._resume.parts + 1)]
        self._resumed_parts = len(parts)
        self._stored.extend(parts)
        log.info("transfer.resumed", parts=len(parts), bytes=self._checkpoint.digested_bytes)
        self._report(self._checkpoint.digested_bytes)
        return [bytes.fromhex(part.etag) for part in parts]

    def _read_all(self, check: FileCheck, *, to_store: bool) -> list[DigestedPart]:
        """Digest the whole file without sending it."""
        return [
            self._pool.run(partial(self._parts.read, part, check=check, to_store=to_store))
            for part in self._plan
        ]

    def _part_stored(self, part: StoredPart) -> None:
        self._stored.append(part)
        self._resume.stored(part)
        self._report(part.size_bytes)

    def _report(self, size_bytes: int) -> None:
        self._bytes_done += size_bytes
        self._listener.on_progress(self._bytes_done, self._resume.checkpoint)

    def _sent(self, head: ObjectHead, *, sha256: str) -> SentObject:
        seconds = time.monotonic() - self._began
        log.info(
            "transfer.object_stored",
            key=self._key,
            source=self._source.kind,
            size_bytes=head.size_bytes,
            parts=len(self._plan),
            parts_resumed=self._resumed_parts,
            seconds=round(seconds, 3),
            mib_per_second=round(head.size_bytes / MIB / seconds, 1) if seconds else None,
            etag=head.etag,
        )
        return SentObject(
            etag=head.etag,
            sha256=sha256,
            size_bytes=head.size_bytes,
            content_type=self._content_type,
        )
