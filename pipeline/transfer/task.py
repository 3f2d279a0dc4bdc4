"""`upload.finalized` → one verified object → `upload.stored`."""

from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

import structlog

from pipeline.context import Context, current_context
from pipeline.messaging.event_task import EventTask, MessageDelivery, RetryLater, data_of
from pipeline.transfer import lease, record, residue
from pipeline.transfer.errors import LeaseLost, TransferCancelled
from pipeline.transfer.lease import ClaimedTransfer, Settled, UnknownUpload
from pipeline.transfer.listener import HEARTBEAT, TransferListener
from pipeline.transfer.part_pool import PartUploadPool
from pipeline.transfer.progress import Progress
from pipeline.transfer.record import StoredObject
from pipeline.transfer.send import PreviousAttempt, send_file
from pipeline.transfer.sources import mount
from pipeline.transfer.sources.mount import StagingNotMounted
from pipeline.transfer.sources.reference import ReferencedObject
from pipeline.transfer.sources.staged_file import Source, StagingMissing
from pipeline.transfer.sources.staged_objects import StagedObjects
from schemas import topology
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadFinalized
from schemas.lifecycle import StagingKind
from schemas.policy import media_types
from schemas.policy.quotas import Quotas
from schemas.settings import STAGING_MARKER

log = structlog.stdlib.get_logger(__name__)


class TransferUpload(EventTask):
    """Sends a finalized upload to the object store and hands the document on."""

    name = "tasks.upload_to_object_store"
    home_queue: ClassVar[str] = topology.UPLOADS

    def handle(self, event: Envelope, delivery: MessageDelivery) -> None:
        finalized = data_of(event, UploadFinalized)
        context = current_context()
        owner = context.new_lease_owner()
        with context.transaction() as session:
            claimed = lease.claim(
                session,
                job_id=finalized.job_id,
                upload_id=finalized.upload_id,
                owner=owner,
                lease=context.settings.transfer_lease,
            )
        if isinstance(claimed, Settled):
            # A second delivery, or the first one after a cancel; a worker that
            # died after recording may have left what was staged behind.
            log.info("transfer.already_settled", outcome=claimed.name.lower())
            _remove_rest(context, event, outcome=claimed)
            return
        try:
            staged = _transfer(context, claimed, event=event, delivery=delivery)
        except TransferCancelled:
            log.info("transfer.cancelled")
            # First, whatever comes of the rest: nobody can take a cancelled upload.
            _release(context, claimed)
            _remove_rest(context, event, outcome=Settled.CANCELLED)
            return
        except LeaseLost as lost:
            raise RetryLater(str(lost)) from lost
        except Exception as error:
            _release(context, claimed)
            if isinstance(error, StagingMissing) and _is_not_mounted(context, claimed):
                log.error("transfer.staging_not_mounted")  # noqa: TRY400  # the reason says it all
                raise StagingNotMounted(
                    f"the staging directory has no {STAGING_MARKER}: is its volume mounted?"
                ) from error
            raise
        residue.remove_staged(
            context,
            tenant_id=claimed.tenant_id,
            upload_id=claimed.upload_id,
            staging=claimed.staging,
            known=staged.keys() if isinstance(staged, StagedObjects) else (),
        )

    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:
        finalized = data_of(event, UploadFinalized)
        if isinstance(error, UnknownUpload):
            return  # nobody to tell, nothing to remove
        context = current_context()
        with context.transaction() as session:
            outcome = record.record_failed(
                session,
                finalized,
                tenant_id=event.tenantid,
                error=error,
                now=datetime.now(UTC),
                traceparent=delivery.traceparent,
            )
        # Also where it was settled before: whoever settled it may have died right after.
        _remove_rest(context, event, outcome=outcome)

    def got_further(self, event: Envelope) -> bool:
        with current_context().transaction() as session:
            return lease.got_further(session, job_id=data_of(event, UploadFinalized).job_id)


def _release(context: Context, claimed: ClaimedTransfer) -> None:
    with context.transaction() as session:
        lease.release(session, job_id=claimed.job_id, owner=claimed.owner)


def _is_not_mounted(context: Context, claimed: ClaimedTransfer) -> bool:
    return claimed.staging is StagingKind.DIRECTORY and mount.is_lost(context)


def _remove_rest(context: Context, event: Envelope, *, outcome: Settled) -> None:
    """Remove what is staged of an upload that ended, and what the store has of it unless it is stored.

    Raises:
        ResidueLeft: the store does not answer; the event comes back for it.
    """
    upload_id = data_of(event, UploadFinalized).upload_id
    with context.transaction() as session:
        left = record.left_of(session, upload_id)
    if outcome is Settled.STORED:
        residue.remove_staged(
            context, tenant_id=event.tenantid, upload_id=upload_id, staging=left.staging
        )
        return
    residue.remove_all(
        context,
        tenant_id=event.tenantid,
        upload_id=upload_id,
        staging=left.staging,
        multipart_id=left.multipart_id,
    )


def _transfer(
    context: Context, claimed: ClaimedTransfer, *, event: Envelope, delivery: MessageDelivery
) -> Source:
    """Send an upload and put the object on record; return what was sent."""
    progress = Progress(context, claimed)
    staged: Source
    if claimed.staging is StagingKind.REFERENCE:
        staged = _find_referenced(context, claimed, progress=progress)
        with context.transaction() as session:
            claimed = record.admit(
                session,
                claimed,
                size_bytes=staged.size_bytes,
                sniffed_type=staged.sniffed_type,
                content_type=staged.content_type,
                defaults=Quotas.from_settings(context.settings),
            )
        progress = Progress(context, claimed)
    else:
        staged = mount.staged(context, claimed)
    stored = _send(context, claimed, staged=staged, progress=progress)
    with context.transaction() as session:
        record.record_stored(
            session,
            claimed,
            stored=stored,
            event_id=event.id,
            now=datetime.now(UTC),
            traceparent=delivery.traceparent,
        )
    return staged


def _find_referenced(
    context: Context, claimed: ClaimedTransfer, *, progress: Progress
) -> ReferencedObject:
    if claimed.source_key is None:
        raise TypeError("a reference without a key")
    # A store that does not answer must not cost the lease.
    with PartUploadPool[None](
        1, on_result=lambda _: None, heartbeat=progress.renew, every=HEARTBEAT
    ) as lanes:
        return lanes.run(
            partial(
                ReferencedObject.find,
                claimed.source_key,
                storage=context.storage,
                sha256=claimed.declared_sha256,
                content_type=claimed.declared_content_type,
            )
        )


def _send(
    context: Context, claimed: ClaimedTransfer, *, staged: Source, progress: Progress
) -> StoredObject:
    settings = context.settings
    sent = send_file(
        staged,
        to=claimed.object_key,
        storage=context.storage,
        plan=mount.part_plan(claimed, settings=settings),
        parallel_parts=settings.s3_parallel_parts,
        resume=(
            None
            if claimed.multipart_id is None
            else PreviousAttempt(claimed.multipart_id, checkpoint=claimed.checkpoint)
        ),
        watch=TransferListener(
            on_created=progress.multipart_created,
            on_progress=progress.bytes_stored,
            heartbeat=progress.renew,
        ),
        work_dir=settings.work_dir,
    )
    return StoredObject(
        size=sent.size_bytes,
        sha256=sent.sha256,
        etag=sent.etag,
        content_type=sent.content_type,
        will_be_read=media_types.is_pdf_candidate(
            sent.content_type,
            declared=claimed.declared_content_type,
            filename=claimed.filename,
        ),
    )
