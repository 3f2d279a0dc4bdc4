"""The two tasks of a transfer: send a finalized upload, and clean up a cancelled upload."""

from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

import structlog

from pipeline.context import Context, current_context
from pipeline.messaging.event_task import EventTask, MessageDelivery, RetryLater, data_of
from pipeline.transfer import cleanup, lease, plan, record
from pipeline.transfer.cleanup import Leftovers
from pipeline.transfer.errors import LeaseLost, TransferCancelled
from pipeline.transfer.lease import ClaimedTransfer, Settled, UnknownUpload
from pipeline.transfer.part_pool import PartUploadPool
from pipeline.transfer.plan import PartPlan
from pipeline.transfer.progress import Progress
from pipeline.transfer.resume import PreviousAttempt
from pipeline.transfer.send import FileTransfer, SentObject, TransferListener
from pipeline.transfer.sources import staging
from pipeline.transfer.sources.reference import ReferencedObject
from pipeline.transfer.sources.source import Source
from pipeline.transfer.sources.staged_objects import StagedObjects
from pipeline.transfer.sources.staging import StagingNotMounted
from schemas import staging_layout, topology
from schemas.errors import DomainError, StagingMissing
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled, UploadFinalized
from schemas.lifecycle import StagingKind
from schemas.policy import media_types
from schemas.policy.quotas import Quotas
from schemas.settings import ObjectStoreSettings

log = structlog.stdlib.get_logger(__name__)


class TransferUpload(EventTask):
    """`upload.finalized` → one verified object → `upload.stored`."""

    name = "tasks.upload_to_object_store"
    home_queue: ClassVar[str] = topology.UPLOADS

    def handle(self, event: Envelope, delivery: MessageDelivery) -> None:
        finalized = data_of(event, UploadFinalized)
        context = current_context()
        with context.transaction() as session:
            claimed = lease.claim(
                session,
                job_id=finalized.job_id,
                upload_id=finalized.upload_id,
                owner=context.new_lease_owner(),
                lease=context.settings.transfer_lease,
            )
        if isinstance(claimed, Settled):
            # The event was delivered twice, or the upload is cancelled. A worker that died
            # after it recorded the result may have left the staged bytes.
            log.info("transfer.already_settled", outcome=claimed.name.lower())
            _clean_up(context, finalized, settled=claimed)
            return
        try:
            source = _transfer(context, claimed, event=event, delivery=delivery)
        except TransferCancelled:
            log.info("transfer.cancelled")
            # The lease is released first, even if the cleanup fails: no worker claims a cancelled
            # upload.
            _release(context, claimed)
            _clean_up(context, finalized, settled=Settled.CANCELLED)
            return
        except LeaseLost as lost:
            raise RetryLater(str(lost)) from lost
        except Exception as error:
            _release(context, claimed)
            if isinstance(error, StagingMissing) and _is_not_mounted(context, claimed):
                log.error("transfer.staging_not_mounted")  # noqa: TRY400  # the traceback adds nothing
                raise StagingNotMounted(
                    f"the staging directory has no {staging_layout.MARKER}: is its volume mounted?"
                ) from error
            raise
        cleanup.clean_up_staged(
            context,
            Leftovers(
                tenant_id=claimed.tenant_id, upload_id=claimed.upload_id, staging=claimed.staging
            ),
            known=source.keys() if isinstance(source, StagedObjects) else (),
        )

    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:
        finalized = data_of(event, UploadFinalized)
        if isinstance(error, UnknownUpload):
            return
        context = current_context()
        with context.transaction() as session:
            settled = record.record_failed(
                session,
                finalized,
                tenant_id=event.tenantid,
                error=error,
                now=datetime.now(UTC),
                traceparent=delivery.traceparent,
            )
        # Also if another delivery settled the job: its worker may have died before its cleanup.
        _clean_up(context, finalized, settled=settled)

    def got_further(self, event: Envelope) -> bool:
        with current_context().transaction() as session:
            return lease.got_further(session, job_id=data_of(event, UploadFinalized).job_id)


class CleanUpUpload(EventTask):
    """`upload.cancelled` → nothing of the upload is left in staging or in the store.

    A worker that is sending the upload notices the cancellation within a second and cleans
    up. This task covers uploads that no worker is sending, and workers that died.
    """

    name = "tasks.discard_upload"
    home_queue: ClassVar[str] = topology.UPLOADS

    def handle(self, event: Envelope, delivery: MessageDelivery) -> None:  # noqa: ARG002  # every delivery does the same
        context = current_context()
        with context.transaction() as session:
            left = cleanup.leftovers_of_cancelled(
                session, data_of(event, UploadCancelled).upload_id
            )
        if left is None:
            # Old or forged events must not delete an upload that is not cancelled.
            log.warning("transfer.cleanup_refused", reason="the upload is not cancelled")
            return
        cleanup.clean_up(context, left)
        log.info("transfer.cleaned_up", staging=left.staging)

    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:  # noqa: ARG002  # no client waits for the result
        upload_id = data_of(event, UploadCancelled).upload_id
        log.error("transfer.cleanup_given_up", upload_id=str(upload_id), reason=str(error))


def _release(context: Context, claimed: ClaimedTransfer) -> None:
    with context.transaction() as session:
        lease.release(session, claimed)


def _is_not_mounted(context: Context, claimed: ClaimedTransfer) -> bool:
    return claimed.staging is StagingKind.DIRECTORY and not staging.is_mounted(context)


def _clean_up(context: Context, finalized: UploadFinalized, *, settled: Settled) -> None:
    """Delete the staged bytes of a settled upload, and everything in the store unless it is stored.

    Raises:
        CleanupIncomplete: the store fails; the event is delivered again.
    """
    with context.transaction() as session:
        left = cleanup.leftovers(session, finalized.upload_id)
    if settled is Settled.STORED:
        cleanup.clean_up_staged(context, left)
    else:
        cleanup.clean_up(context, left)


def _transfer(
    context: Context, claimed: ClaimedTransfer, *, event: Envelope, delivery: MessageDelivery
) -> Source:
    """Send an upload and record the object; return the source that was sent."""
    source: Source
    if claimed.staging is StagingKind.REFERENCE:
        source = _find_reference(context, claimed)
        with context.transaction() as session:
            claimed = record.admit_reference(
                session,
                claimed,
                size_bytes=source.size_bytes,
                sniffed_type=source.sniffed_type,
                content_type=source.content_type,
                defaults=Quotas.from_settings(context.settings),
            )
    else:
        source = staging.open_staged(context, claimed)
    sent = _send(context, claimed, source=source)
    with context.transaction() as session:
        record.record_stored(
            session,
            claimed,
            sent=sent,
            will_be_read=media_types.is_pdf_candidate(
                sent.content_type,
                declared=claimed.declared_content_type,
                filename=claimed.filename,
            ),
            event_id=event.id,
            now=datetime.now(UTC),
            traceparent=delivery.traceparent,
        )
    return source


def _find_reference(context: Context, claimed: ClaimedTransfer) -> ReferencedObject:
    if claimed.source_key is None:
        raise TypeError("a reference without a key")
    # With a heartbeat: the lease must not expire while the store does not answer.
    with PartUploadPool[None](heartbeat=Progress(context, claimed).renew) as pool:
        return pool.run(
            partial(
                ReferencedObject.find,
                claimed.source_key,
                storage=context.storage,
                sha256=claimed.declared_sha256,
                content_type=claimed.declared_content_type,
            )
        )


def _send(context: Context, claimed: ClaimedTransfer, *, source: Source) -> SentObject:
    settings = context.settings
    progress = Progress(context, claimed)
    return FileTransfer(
        source,
        to=claimed.object_key,
        storage=context.storage,
        plan=_part_plan(claimed, settings=settings),
        parallel_parts=settings.s3_parallel_parts,
        previous=(
            None
            if claimed.multipart_id is None
            else PreviousAttempt(claimed.multipart_id, checkpoint=claimed.checkpoint)
        ),
        listener=TransferListener(
            on_created=progress.multipart_created,
            on_progress=progress.bytes_stored,
            heartbeat=progress.renew,
        ),
        work_dir=settings.work_dir,
    ).run()


def _part_plan(claimed: ClaimedTransfer, *, settings: ObjectStoreSettings) -> PartPlan:
    """Make the staged objects the parts if S3 allows it, else use the part size of the settings."""
    max_parts = settings.s3_max_parts
    along_chunks = (
        plan.along_chunks(claimed.size, chunk_size=claimed.chunk_size, max_parts=max_parts)
        if claimed.staging is StagingKind.OBJECTS
        else None
    )
    return along_chunks or plan.split(
        claimed.size, part_size=settings.s3_part_size, max_parts=max_parts
    )
