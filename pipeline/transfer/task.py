"""The two tasks of a transfer: send a finalized upload, and clean up a cancelled upload."""

from functools import partial
from typing import ClassVar

import structlog
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context, database_time
from pipeline.messaging.event_task import MessageDelivery, data_of
from pipeline.steps import lease as steps
from pipeline.steps.call_pool import CallPool
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from pipeline.storage import plan
from pipeline.storage.plan import PartPlan
from pipeline.transfer import claim, cleanup, record
from pipeline.transfer.claim import ClaimedTransfer, UnknownUpload
from pipeline.transfer.cleanup import Leftovers
from pipeline.transfer.progress import Progress
from pipeline.transfer.resume import PreviousAttempt
from pipeline.transfer.send import FileTransfer, SentObject, TransferListener
from pipeline.transfer.sources import staging
from pipeline.transfer.sources.reference import ReferencedObject, ReferenceMissing
from pipeline.transfer.sources.source import Source
from pipeline.transfer.sources.staged_objects import StagedObjects
from pipeline.transfer.sources.staging import StagingNotMounted
from schemas import queues, staging_layout
from schemas.errors import DomainError, StagingMissing
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled, UploadFinalized
from schemas.lifecycle import StagingKind, StepStatus
from schemas.policy.quotas import Quotas
from schemas.settings import ObjectStoreSettings
from schemas.steps import StepName

log = structlog.stdlib.get_logger(__name__)


class TransferUpload(StepTask[ClaimedTransfer]):
    """`upload.finalized` → one verified object → `upload.stored`."""

    name = "tasks.upload_to_object_store"
    home_queue: ClassVar[str] = queues.UPLOADS
    step: ClassVar[StepName] = StepName.TRANSFER

    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> ClaimedTransfer:
        return claim.load(session, claimed, upload_id=data_of(event, UploadFinalized).upload_id)

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,  # noqa: ARG002  # a part of `loaded`
        loaded: ClaimedTransfer,
        *,
        event: Envelope,  # noqa: ARG002  # read by `load`
        delivery: MessageDelivery,
    ) -> None:
        try:
            source = _transfer(context, loaded, delivery=delivery)
        except StagingMissing as error:
            if not _is_not_mounted(context, loaded):
                raise
            log.error("transfer.staging_not_mounted")  # noqa: TRY400  # the traceback adds nothing
            raise StagingNotMounted(
                f"the staging directory has no {staging_layout.MARKER}: is its volume mounted?"
            ) from error
        cleanup.clean_up_staged(
            context,
            Leftovers(
                tenant_id=loaded.tenant_id,
                upload_id=loaded.upload_id,
                staging=loaded.staging,
            ),
            known=source.keys() if isinstance(source, StagedObjects) else (),
        )

    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        return record.record_failed(
            session,
            data_of(event, UploadFinalized),
            tenant_id=event.tenantid,
            error=error,
            settings=current_context().settings,
            now=database_time(session),
            traceparent=delivery.traceparent,
        )

    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:
        if isinstance(error, UnknownUpload):
            return
        if isinstance(error, ReferenceMissing) and error.nothing_sent:
            # The cleanup takes most of the time of such a step, and a client can submit thousands.
            with current_context().transaction() as session:
                self.record_failed(session, event=event, error=error, delivery=delivery)
        else:
            super().give_up(event, error, delivery)

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        """Delete the staged bytes, and everything in the store unless the upload is stored.

        Raises:
            CleanupIncomplete: the store fails; the event is delivered again.
            UnknownUpload: the event names the upload of another job.
        """
        finalized = data_of(event, UploadFinalized)
        with context.transaction() as session:
            left = cleanup.leftovers(session, finalized.upload_id, job_id=finalized.job_id)
        if status is StepStatus.COMPLETED:
            cleanup.clean_up_staged(context, left)
        else:
            cleanup.clean_up(context, left)


class CleanUpUpload(StepTask[Leftovers | None]):
    """`upload.cancelled` → nothing of the upload is left in staging or in the store.

    A worker that is sending the upload notices the cancellation within a second and cleans
    up. This task covers uploads that no worker is sending, and workers that died.
    """

    name = "tasks.discard_upload"
    home_queue: ClassVar[str] = queues.UPLOADS
    step: ClassVar[StepName] = StepName.CLEANUP

    def load(
        self,
        session: Session,
        claimed: ClaimedStep,  # noqa: ARG002  # the event says all
        *,
        event: Envelope,
    ) -> Leftovers | None:
        return cleanup.leftovers_of_cancelled(session, data_of(event, UploadCancelled).upload_id)

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: Leftovers | None,
        *,
        event: Envelope,  # noqa: ARG002  # read by `load`
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> None:
        if loaded is None:
            # Old or forged events must not delete an upload that is not cancelled.
            log.warning("transfer.cleanup_refused", reason="the upload is not cancelled")
        else:
            # With a heartbeat: an upload may have thousands of staged objects.
            with CallPool[None](heartbeat=Heartbeat(context, claimed).renew) as pool:
                pool.run(partial(cleanup.clean_up, context, loaded))
            with context.transaction() as session:
                cleanup.delete_document(session, loaded.upload_id)
            log.info("transfer.cleaned_up", staging=loaded.staging)
        with context.transaction() as session:
            steps.complete(session, claimed, done=0, total=None, settings=context.settings)

    def record_failed(
        self,
        session: Session,
        *,
        event: Envelope,
        error: DomainError,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> StepStatus:
        cancelled = data_of(event, UploadCancelled)
        log.error(
            "transfer.cleanup_given_up", upload_id=str(cancelled.upload_id), reason=str(error)
        )
        if cancelled.job_id is None:
            return StepStatus.FAILED
        ended_before = steps.fail(
            session,
            job_id=cancelled.job_id,
            name=self.step,
            error=error,
            settings=current_context().settings,
        )
        return ended_before or StepStatus.FAILED


def _is_not_mounted(context: Context, claimed: ClaimedTransfer) -> bool:
    return claimed.staging is StagingKind.DIRECTORY and not staging.is_mounted(context)


def _transfer(context: Context, claimed: ClaimedTransfer, *, delivery: MessageDelivery) -> Source:
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
                settings=context.settings,
            )
    else:
        source = staging.open_staged(context, claimed)
    sent = _send(context, claimed, source=source)
    with context.transaction() as session:
        record.record_stored(
            session,
            claimed,
            sent=sent,
            will_be_read=context.will_be_read(
                sent.content_type,
                declared=claimed.declared_content_type,
                filename=claimed.filename,
            ),
            will_be_scanned=context.settings.scanner is not None,
            settings=context.settings,
            now=database_time(session),
            traceparent=delivery.traceparent,
        )
    return source


def _find_reference(context: Context, claimed: ClaimedTransfer) -> ReferencedObject:
    if claimed.source_key is None:
        raise TypeError("a reference without a key")
    # With a heartbeat: the lease must not expire while the store does not answer.
    try:
        with CallPool[None](heartbeat=Progress(context, claimed).renew) as pool:
            return pool.run(
                partial(
                    ReferencedObject.find,
                    claimed.source_key,
                    storage=context.storage,
                    sha256=claimed.declared_sha256,
                    content_type=claimed.declared_content_type,
                )
            )
    except ReferenceMissing as missing:
        missing.nothing_sent = claimed.step.is_first
        raise


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
