"""`upload.finalized` → one verified object → `upload.stored`."""

from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import ClassVar

import structlog

from pipeline import resources
from pipeline.event_task import Delivery, EventTask, NotNow
from pipeline.resources import Resources
from pipeline.storage.errors import StoreFailed
from pipeline.transfer import content_type, operations, plan, upload
from pipeline.transfer.interruptions import LeaseLost, TransferCancelled
from pipeline.transfer.operations import Claim, Settled, StoredObject, UnknownUpload
from pipeline.transfer.staged import StagedFile
from pipeline.transfer.upload import SentObject, StagingMissing, Watch
from schemas import object_keys, topology
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadFinalized
from schemas.ids import UploadId
from schemas.settings import STAGING_MARKER

log = structlog.get_logger(__name__)


class SliceEnded(NotNow):
    """This delivery was held for `TRANSFER_SLICE`; another one goes on from here."""

    made_progress = True


class StagingNotMounted(NotNow):
    """The staging directory here is not the one the gateways write to."""

    may_take_long = True

    def __init__(self) -> None:
        super().__init__(f"the staging directory has no {STAGING_MARKER}: is its volume mounted?")


class ResidueLeft(NotNow):
    """What is in the store of an upload that ended without an object could not be removed yet."""

    may_take_long = True


class UploadToObjectStore(EventTask):
    """Sends a finalized upload to the object store and hands the document on."""

    name = "tasks.upload_to_object_store"
    home_queue: ClassVar[str] = topology.UPLOADS

    def handle(self, event: Envelope, delivery: Delivery) -> None:
        finalized = _data(event)
        kit = resources.current()
        owner = kit.new_lease_owner()
        with kit.transaction() as session:
            claimed = operations.claim(
                session,
                job_id=finalized.job_id,
                upload_id=finalized.upload_id,
                owner=owner,
                lease=kit.settings.transfer_lease,
            )
        if isinstance(claimed, Settled):
            # A second delivery, or the first one after a cancel; a worker that
            # died after recording may have left the staged file behind.
            log.info("transfer.already_settled", outcome=claimed.name.lower())
            _staged_path(kit, finalized.upload_id).unlink(missing_ok=True)
            if claimed is not Settled.STORED:
                _discard(kit, event)
            return
        try:
            stored = _send(kit, claimed)
            with kit.transaction() as session:
                operations.record_stored(
                    session,
                    claimed,
                    stored=stored,
                    event_id=event.id,
                    now=datetime.now(UTC),
                    traceparent=delivery.traceparent,
                )
        except TransferCancelled:
            log.info("transfer.cancelled")
            _staged_path(kit, claimed.upload_id).unlink(missing_ok=True)
            _discard(kit, event)
            return
        except LeaseLost as lost:
            raise NotNow(str(lost)) from lost
        except Exception as error:
            with kit.transaction() as session:
                operations.release(session, job_id=claimed.job_id, owner=owner)
            if isinstance(error, StagingMissing) and not _is_mounted(kit):
                log.error("transfer.staging_not_mounted")  # noqa: TRY400  # the reason says it all
                raise StagingNotMounted from error
            raise
        _staged_path(kit, claimed.upload_id).unlink(missing_ok=True)

    def give_up(self, event: Envelope, error: DomainError, delivery: Delivery) -> None:
        finalized = _data(event)
        if isinstance(error, UnknownUpload):
            return  # nobody to tell, nothing to remove
        kit = resources.current()
        with kit.transaction() as session:
            outcome = operations.record_failed(
                session,
                finalized,
                tenant_id=event.tenantid,
                error=error,
                now=datetime.now(UTC),
                traceparent=delivery.traceparent,
            )
        _staged_path(kit, finalized.upload_id).unlink(missing_ok=True)
        # Also where it was settled before: whoever settled it may have died right after.
        if outcome is not Settled.STORED:
            _discard(kit, event)


def _data(event: Envelope) -> UploadFinalized:
    if not isinstance(event.data, UploadFinalized):
        msg = f"the intake sent a {event.type} here"
        raise TypeError(msg)
    return event.data


def _is_mounted(kit: Resources) -> bool:
    return (kit.settings.staging_dir / STAGING_MARKER).exists()


def _staged_path(kit: Resources, upload_id: UploadId) -> Path:
    return kit.settings.staging_dir / str(upload_id)


def _discard(kit: Resources, event: Envelope) -> None:
    """Remove what the store has of an upload that ended without an object.

    Raises:
        ResidueLeft: the store does not answer; the event comes back for it.
    """
    key = object_keys.original(event.tenantid, _data(event).upload_id)
    try:
        upload.discard(key, storage=kit.storage)
    except StoreFailed as error:
        log.warning("transfer.residue_left", key=key, reason=str(error))
        raise ResidueLeft(str(error)) from error


def _send(kit: Resources, claimed: Claim) -> StoredObject:
    settings = kit.settings
    progress = _Progress(kit, claimed)
    sent: SentObject = upload.send(
        StagedFile(
            path=_staged_path(kit, claimed.upload_id),
            size_bytes=claimed.size,
            chunk_size=claimed.chunk_size,
            chunks=claimed.chunks,
            sha256=claimed.declared_sha256,
            content_type=claimed.declared_content_type,
        ),
        to=claimed.object_key,
        storage=kit.storage,
        plan=plan.split(
            claimed.size, part_size=settings.s3_part_size, max_parts=settings.s3_max_parts
        ),
        parallel_parts=settings.s3_parallel_parts,
        resume=claimed.multipart_id,
        watch=Watch(
            on_created=progress.multipart_created,
            on_progress=progress.bytes_stored,
            heartbeat=progress.renew,
        ),
    )
    return StoredObject(
        size=sent.size_bytes,
        sha256=sent.sha256,
        etag=sent.etag,
        content_type=sent.content_type,
        will_be_read=content_type.is_pdf_candidate(
            sent.content_type,
            declared=claimed.declared_content_type,
            filename=claimed.filename,
        ),
    )


class _Progress:
    """Writes down how far a transfer got, and keeps its lease with the same stroke."""

    def __init__(self, kit: Resources, claimed: Claim) -> None:
        self._kit = kit
        self._claimed = claimed
        self._bytes_done = 0
        self._multipart_id = claimed.multipart_id
        self._slice_ends = monotonic() + kit.settings.transfer_slice.total_seconds()

    def multipart_created(self, multipart_id: str) -> None:
        self._multipart_id = multipart_id
        self.renew()

    def bytes_stored(self, bytes_done: int) -> None:
        self._bytes_done = bytes_done
        self.renew()

    def renew(self) -> None:
        with self._kit.transaction() as session:
            operations.renew(
                session,
                job_id=self._claimed.job_id,
                owner=self._claimed.owner,
                lease=self._kit.settings.transfer_lease,
                bytes_done=self._bytes_done,
                multipart_id=self._multipart_id,
            )
        # Reading what is stored already takes time too: a slice without a new part
        # would be followed by another one just like it, for ever.
        if monotonic() > self._slice_ends and self._bytes_done > self._claimed.bytes_done:
            raise SliceEnded(f"{self._bytes_done} of {self._claimed.size} bytes stored")
