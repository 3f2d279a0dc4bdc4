"""`upload.stored` → text, passages and entities of a PDF → `document.ingested`."""

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Final

import structlog
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context, database_time
from pipeline.ingest import readers, reading, record
from pipeline.ingest.errors import PdfLimitExceeded
from pipeline.ingest.frames import ReadPages
from pipeline.ingest.record import EventContext
from pipeline.ingest.sandbox.limits import ReadingLimits
from pipeline.ingest.writer import PageWriter
from pipeline.messaging.event_task import MessageDelivery, data_of
from pipeline.steps.call_pool import CallPool
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent
from schemas.lifecycle import StepStatus
from schemas.object_keys import ObjectKey
from schemas.policy.media_types import PDF
from schemas.steps import StepName

log = structlog.stdlib.get_logger(__name__)

PREFIX: Final = "waybill-reading-"


class IngestDocument(StepTask[None]):
    """Reads a stored PDF."""

    name = "tasks.ingest_document"
    home_queue: ClassVar[str] = queues.DOCUMENT_PROCESSING
    step: ClassVar[StepName] = StepName.INGEST

    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> None:
        """Read nothing: the event says all."""

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: None,  # noqa: ARG002  # the event says all
        *,
        event: Envelope,
        delivery: MessageDelivery,
    ) -> None:
        stored = data_of(event, StoredEvent)
        if stored.size > context.settings.pdf_file_max:
            # Before the download, which could fill the disk.
            raise PdfLimitExceeded(
                f"{stored.size} of at most {context.settings.pdf_file_max} bytes"
            )
        heartbeat = Heartbeat(context, claimed)
        with TemporaryDirectory(prefix=PREFIX, dir=context.settings.work_dir) as directory:
            _remove_abandoned(context, own=Path(directory))
            file = Path(directory) / "original.pdf"
            with CallPool[None](heartbeat=heartbeat.renew) as pool:
                pool.run(partial(context.storage.download, ObjectKey(stored.object_key), to=file))
            _read_and_record(context, file, heartbeat=heartbeat, event=event, delivery=delivery)

    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        return record.record_failed(
            session,
            data_of(event, StoredEvent),
            error=error,
            settings=current_context().settings,
            event_context=_event_context(session, event, delivery),
        )

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        if status is StepStatus.CANCELLED:
            with context.transaction() as session:
                record.delete_purged(session, data_of(event, StoredEvent))


def _remove_abandoned(context: Context, *, own: Path) -> None:
    """Remove the directories of readers that were killed.

    Args:
        context: the settings.
        own: the new directory of this reader. Its time is that of the file system, which alone
            compares with the times of the others: the clock of the process may be wrong.
    """
    oldest = own.stat().st_mtime - 2 * context.settings.task_time_limit.total_seconds()
    for directory in own.parent.glob(f"{PREFIX}*"):
        # Another worker may remove it at the same time.
        with suppress(FileNotFoundError):
            if directory.stat().st_mtime < oldest:
                log.warning("ingest.abandoned_directory_removed", directory=directory.name)
                shutil.rmtree(directory)


def _event_context(session: Session, event: Envelope, delivery: MessageDelivery) -> EventContext:
    """Return the event with the time of its recording, not of the start of the reading."""
    return EventContext(
        tenant_id=event.tenantid,
        now=database_time(session),
        traceparent=delivery.traceparent,
    )


def _read_and_record(
    context: Context,
    file: Path,
    *,
    heartbeat: Heartbeat,
    event: Envelope,
    delivery: MessageDelivery,
) -> None:
    """Read in a child process and write in one transaction; the object store is not used here."""
    stored = data_of(event, StoredEvent)
    limits = ReadingLimits.from_settings(context.settings)
    with context.transaction() as session:
        record.lock_document(session, stored)
        with reading.open_document(
            ReadPages(path=str(file), media_type=PDF, limits=limits),
            reader=readers.of_this_process(context.settings),
            tenant_id=event.tenantid,
            while_waiting=heartbeat.beat,
        ) as document:
            heartbeat.total = min(document.opened.page_count, limits.pages)
            writer = PageWriter(session, stored)
            for page in document.pages():
                writer.write(page)
                heartbeat.done = page.number
                heartbeat.beat()
            writer.flush()
            summary = document.summary
            record.record_ingested(
                session,
                stored,
                heartbeat.claimed,
                opened=document.opened,
                read=summary,
                settings=context.settings,
                event_context=_event_context(session, event, delivery),
            )
    log.info(
        "ingest.document_read",
        document_id=str(stored.document_id),
        pages=summary.pages_read,
        pages_failed=summary.pages_failed,
        entities=summary.entities,
    )
