"""`upload.stored` → text, passages and entities of a PDF → `document.ingested`."""

import shutil
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import ClassVar, Final

import structlog
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.enrich import language
from pipeline.ingest import reading, record
from pipeline.ingest.errors import PdfLimitExceeded
from pipeline.ingest.frames import DocumentRead
from pipeline.ingest.reading import DocumentReading
from pipeline.ingest.record import EventContext, NoLongerWanted
from pipeline.ingest.sandbox.limits import ReadingLimits
from pipeline.ingest.writer import PageWriter
from pipeline.messaging.event_task import EventTask, MessageDelivery, data_of
from schemas import topology
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent
from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)

PREFIX: Final = "waybill-reading-"
PROGRESS_INTERVAL: Final = timedelta(seconds=1)


class IngestDocument(EventTask):
    """Reads a stored PDF; ignores other stored files."""

    name = "tasks.ingest_document"
    home_queue: ClassVar[str] = topology.DOCUMENT_PROCESSING

    def handle(self, event: Envelope, delivery: MessageDelivery) -> None:
        stored = data_of(event, StoredEvent)
        if not stored.will_be_read:
            log.debug("ingest.skipped", content_type=stored.content_type)
            return
        context = current_context()
        try:
            self._ingest(context, event, delivery)
        except NoLongerWanted:
            log.info("ingest.cancelled")
            with context.transaction() as session:
                record.delete_purged(session, stored)

    def _ingest(self, context: Context, event: Envelope, delivery: MessageDelivery) -> None:
        stored = data_of(event, StoredEvent)
        with context.transaction() as session:
            applied = record.is_applied(session, event_id=event.id)
            record.check_wanted(session, stored)
        if applied:
            log.info("ingest.already_applied")
            return
        if stored.size > context.settings.pdf_file_max:
            # Before the download, which could fill the disk.
            raise PdfLimitExceeded(
                f"{stored.size} of at most {context.settings.pdf_file_max} bytes"
            )
        _remove_abandoned(context)
        with TemporaryDirectory(prefix=PREFIX, dir=context.settings.work_dir) as directory:
            file = Path(directory) / "original.pdf"
            context.storage.download(ObjectKey(stored.object_key), to=file)
            _read_and_record(context, file, event=event, delivery=delivery)

    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:
        with current_context().transaction() as session:
            record.record_failed(
                session,
                data_of(event, StoredEvent),
                error=error,
                event_context=_event_context(event, delivery),
            )


def _remove_abandoned(context: Context) -> None:
    """Remove the directories of readers that were killed."""
    work_dir = context.settings.work_dir or Path(gettempdir())
    oldest = time.time() - 2 * context.settings.task_time_limit.total_seconds()
    for directory in work_dir.glob(f"{PREFIX}*"):
        # Another worker may remove it at the same time.
        with suppress(FileNotFoundError):
            if directory.stat().st_mtime < oldest:
                log.warning("ingest.abandoned_directory_removed", directory=directory.name)
                shutil.rmtree(directory)


def _event_context(event: Envelope, delivery: MessageDelivery) -> EventContext:
    """Return the event with the time of its recording, not of the start of the reading."""
    return EventContext(
        event_id=event.id,
        tenant_id=event.tenantid,
        now=datetime.now(UTC),
        traceparent=delivery.traceparent,
    )


def _read_and_record(
    context: Context, file: Path, *, event: Envelope, delivery: MessageDelivery
) -> None:
    """Read in a child process and write in one transaction; the object store is not used here."""
    stored = data_of(event, StoredEvent)
    limits = ReadingLimits.from_settings(context.settings)
    with context.transaction() as session:
        # Before the document is opened: this call may wait for another delivery of the event, and
        # opening the document starts its time limit.
        if not record.begin(session, event_id=event.id):
            log.info("ingest.already_applied")
            return
        record.lock_document(session, stored)
        with reading.open_pdf(file, limits=limits, language=language.installed()) as document:
            summary = _write(context, session, document, limits=limits, stored=stored)
            record.record_ingested(
                session,
                stored,
                opened=document.opened,
                read=summary,
                event_context=_event_context(event, delivery),
            )
    log.info(
        "ingest.document_read",
        document_id=str(stored.document_id),
        pages=summary.pages_read,
        pages_failed=summary.pages_failed,
        entities=summary.entities,
    )


def _write(
    context: Context,
    session: Session,
    document: DocumentReading,
    *,
    limits: ReadingLimits,
    stored: StoredEvent,
) -> DocumentRead:
    """Write every page as it is read, and publish the progress in transactions of their own."""
    writer = PageWriter(session, stored)
    pages_total = min(document.opened.page_count, limits.pages)
    shown_at = 0.0
    for page in document.pages():
        writer.write(page)
        if time.monotonic() - shown_at > PROGRESS_INTERVAL.total_seconds():
            shown_at = time.monotonic()
            with context.transaction() as progress:
                record.show_progress(
                    progress, stored, pages_done=page.number, pages_total=pages_total
                )
    writer.flush()
    return document.summary
