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
from pipeline.ingest import language, operations, reading
from pipeline.ingest.operations import NoLongerWanted, Occasion, PageWriter
from pipeline.ingest.outcome import DocumentRead, PdfLimitExceeded
from pipeline.ingest.reading import DocumentReading
from pipeline.ingest.sandbox.limits import ReadingLimits
from pipeline.messaging.event_task import EventTask, MessageDelivery, data_of
from schemas import topology
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent
from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)

PREFIX: Final = "waybill-reading-"
PROGRESS_EVERY: Final = timedelta(seconds=1)


class IngestDocument(EventTask):
    """Reads a stored PDF; whatever else is stored passes it by."""

    name = "tasks.ingest_document"
    home_queue: ClassVar[str] = topology.DOCUMENT_PROCESSING

    def handle(self, event: Envelope, delivery: MessageDelivery) -> None:
        stored = data_of(event, StoredEvent)
        if not stored.will_be_read:
            log.debug("ingest.not_to_be_read", content_type=stored.content_type)
            return
        context = current_context()
        try:
            self._ingest(context, event, delivery)
        except NoLongerWanted:
            log.info("ingest.cancelled")
            with context.transaction() as session:
                operations.forget(session, stored)

    def _ingest(self, context: Context, event: Envelope, delivery: MessageDelivery) -> None:
        stored = data_of(event, StoredEvent)
        with context.transaction() as session:
            applied = operations.is_applied(session, event_id=event.id)
            operations.check_wanted(session, stored)
        if applied:
            log.info("ingest.already_applied")
            return
        if stored.size > context.settings.pdf_file_max:
            # Before the download: its size alone could fill the disk.
            raise PdfLimitExceeded(limit=f"{context.settings.pdf_file_max} bytes of file")
        _sweep(context)
        with TemporaryDirectory(prefix=PREFIX, dir=context.settings.work_dir) as directory:
            file = Path(directory) / "original.pdf"
            context.storage.download(ObjectKey(stored.object_key), to=file)
            _read_and_record(context, file, event=event, delivery=delivery)

    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:
        with current_context().transaction() as session:
            operations.record_failed(
                session,
                data_of(event, StoredEvent),
                error=error,
                occasion=_occasion(event, delivery),
            )


def _sweep(context: Context) -> None:
    """Remove what processes that were killed while reading have left behind."""
    work_dir = context.settings.work_dir or Path(gettempdir())
    oldest = time.time() - 2 * context.settings.task_time_limit.total_seconds()
    for directory in work_dir.glob(f"{PREFIX}*"):
        # Another worker may be sweeping too.
        with suppress(FileNotFoundError):
            if directory.stat().st_mtime < oldest:
                log.warning("ingest.left_behind_removed", directory=directory.name)
                shutil.rmtree(directory)


def _occasion(event: Envelope, delivery: MessageDelivery) -> Occasion:
    """Return the event as it is applied now: when it is recorded, not when reading began."""
    return Occasion(
        event_id=event.id,
        tenant_id=event.tenantid,
        now=datetime.now(UTC),
        traceparent=delivery.traceparent,
    )


def _read_and_record(
    context: Context, file: Path, *, event: Envelope, delivery: MessageDelivery
) -> None:
    """Read in a child process, write in one transaction; the network is not touched meanwhile."""
    stored = data_of(event, StoredEvent)
    limits = ReadingLimits.from_settings(context.settings)
    with context.transaction() as session:
        # First, because it may have to wait for another delivery of the event, and the
        # time a document may take begins when it is opened.
        if not operations.begin(session, event_id=event.id):
            log.info("ingest.already_applied")
            return
        operations.hold_document(session, stored)
        with reading.open_pdf(file, limits=limits, language=language.loaded()) as document:
            summary = _write(context, session, document, limits=limits, stored=stored)
            operations.record_ingested(
                session,
                stored,
                opened=document.opened,
                read=summary,
                occasion=_occasion(event, delivery),
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
    """Write every page as it is read, and show the progress meanwhile."""
    writer = PageWriter(session, stored)
    pages_total = min(document.opened.page_count, limits.pages)
    shown_at = 0.0
    for page in document.pages():
        writer.write(page)
        if time.monotonic() - shown_at > PROGRESS_EVERY.total_seconds():
            shown_at = time.monotonic()
            with context.transaction() as progress:
                operations.show_progress(
                    progress, stored, pages_done=page.number, pages_total=pages_total
                )
    writer.flush()
    return document.summary
