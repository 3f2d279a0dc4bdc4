"""`upload.stored` → title, outline, attachments, page count, language and thumbnail of a document."""

import hashlib
from contextlib import suppress
from threading import Event
from typing import ClassVar

import structlog
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.ingest import description, originals, passwords, readers, record
from pipeline.ingest.extractors.extractor import Structure
from pipeline.ingest.record import DocumentGone
from pipeline.ingest.version import pipeline_version
from pipeline.messaging.event_task import MessageDelivery
from pipeline.steps.errors import StepCancelled
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from pipeline.storage.errors import ObjectExists
from pipeline.storage.port import Body
from schemas import object_keys, queues
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent
from schemas.lifecycle import StepStatus
from schemas.steps import StepName

log = structlog.stdlib.get_logger(__name__)


class ExtractMetadata(StepTask[None]):
    """Describes a stored document, beside the reading of its pages and mostly before its end."""

    name = "tasks.extract_metadata"
    home_queue: ClassVar[str] = queues.METADATA_EXTRACTION
    step: ClassVar[StepName] = StepName.METADATA

    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> None:
        """Read nothing: the event says all."""

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: None,  # noqa: ARG002  # the event says all
        *,
        event: Envelope,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> None:
        document = record.document_of(event)
        originals.check_size(document, size_max=context.settings.pdf_file_max)
        with context.transaction() as session:
            revision_id = record.begin_revision(
                session,
                document,
                tenant_id=event.tenantid,
                pipeline_version=pipeline_version(
                    context.settings, ocr=context.settings, passages=context.settings
                ),
            )
            password = passwords.password_of(session, document.upload_id, context.settings.key_ring)
        heartbeat = Heartbeat(context, claimed)
        with originals.downloaded(context, document, heartbeat=heartbeat.renew) as file:
            found = description.describe(
                originals.opening_of(document, file, password=password, settings=context.settings),
                reader=readers.of_this_process(context.settings),
                tenant_id=event.tenantid,
                while_waiting=heartbeat.beat,
            )
        if found.thumbnail is not None:
            key = object_keys.thumbnail(document.upload_id, revision_id)
            with suppress(ObjectExists):  # from an earlier try
                context.storage.put(
                    key, body=_body(found.thumbnail), content_type="image/png", abandoned=Event()
                )
        try:
            with context.transaction() as session:
                record.record_structure(
                    session,
                    heartbeat.claimed,
                    document,
                    revision_id,
                    structure=found.structure or Structure(is_cut=True),
                    page_count=found.page_count,
                    language=found.language,
                    language_confidence=found.language_confidence,
                    has_thumbnail=found.thumbnail is not None,
                    settings=context.settings,
                )
        except (DocumentGone, StepCancelled):
            # The cleanup of the upload may have ended before the picture was stored.
            context.storage.delete(object_keys.thumbnail(document.upload_id, revision_id))
            raise
        log.info("ingest.document_described", document_id=str(document.document_id))

    def record_failed(
        self,
        session: Session,
        *,
        event: Envelope,
        error: DomainError,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> StepStatus:
        return record.record_structure_failed(
            session,
            record.document_of(event),
            error=error,
            settings=current_context().settings,
        )

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        if status is StepStatus.CANCELLED:
            # A worker that was killed may have stored the picture after the cleanup of the upload.
            document = record.document_of(event)
            if isinstance(document, StoredEvent):
                prefix = object_keys.derived(document.upload_id)
                keys = [each.key for each in context.storage.objects_under(prefix)]
                context.storage.delete_all(keys)
                return
            # The document stays, with the pictures of its other revisions.
            with context.transaction() as session:
                revision_id = record.revision_of_job(session, document.job_id)
            if revision_id is not None:
                context.storage.delete(object_keys.thumbnail(document.upload_id, revision_id))


def _body(content: bytes) -> Body:
    return Body(content, md5=hashlib.md5(content, usedforsecurity=False).digest())
