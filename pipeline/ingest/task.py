"""`upload.stored` → text, passages and entities of a PDF → `document.ingested`."""

import shutil
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import ClassVar, Final

import structlog
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context, database_time
from pipeline.ingest import readers, reading, record
from pipeline.ingest.errors import DocumentLimitExceeded
from pipeline.ingest.frames import PageReading, ReadPages
from pipeline.ingest.record import EndOfReading, EventContext
from pipeline.ingest.sandbox.limits import ReadingLimits
from pipeline.ingest.version import PIPELINE_VERSION
from pipeline.ingest.writer import ROWS_MAX, row_count, write_pages
from pipeline.messaging.event_task import MessageDelivery
from pipeline.steps.call_pool import CallPool
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.lifecycle import StepStatus
from schemas.object_keys import ObjectKey
from schemas.outcomes import Outcome
from schemas.policy.media_types import PDF
from schemas.steps import StepName

log = structlog.stdlib.get_logger(__name__)

PREFIX: Final = "waybill-reading-"

WRITE_EVERY: Final = timedelta(seconds=1)
"""Longest time for which pages that are read are not written."""


class IngestDocument(StepTask[None]):
    """Reads a stored document."""

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
        document = record.document_of(event)
        if document.size > context.settings.pdf_file_max:
            # Before the download, which could fill the disk.
            raise DocumentLimitExceeded(
                f"It has {document.size} bytes, more than {context.settings.pdf_file_max}.",
                outcome=Outcome.LIMIT_FILE_SIZE,
            )
        heartbeat = Heartbeat(context, claimed)
        with TemporaryDirectory(prefix=PREFIX, dir=context.settings.work_dir) as directory:
            _remove_abandoned(context, own=Path(directory))
            file = Path(directory) / "original.pdf"
            with CallPool[None](heartbeat=heartbeat.renew) as pool:
                pool.run(partial(context.storage.download, ObjectKey(document.object_key), to=file))
            _read_and_record(context, file, heartbeat=heartbeat, event=event, delivery=delivery)

    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        return record.record_failed(
            session,
            record.document_of(event),
            name=self.step,
            error=error,
            settings=current_context().settings,
            event_context=_event_context(session, event, delivery),
        )

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        if status is StepStatus.CANCELLED:
            with context.transaction() as session:
                record.delete_purged(session, record.document_of(event))


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
        event_id=event.id,
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
    """Read in a child process, and write in short transactions; the object store is not used here."""
    document = record.document_of(event)
    limits = ReadingLimits.from_settings(context.settings)
    with context.transaction() as session:
        revision_id = record.begin_revision(
            session,
            document,
            tenant_id=event.tenantid,
            pipeline_version=PIPELINE_VERSION,
            now=database_time(session),
        )
    batch: list[PageReading] = []

    def write() -> None:
        with context.transaction() as session:
            heartbeat.claimed = write_pages(
                session,
                heartbeat.claimed,
                document=document,
                revision_id=revision_id,
                pages=batch,
                total=heartbeat.total,
                settings=context.settings,
            )
        heartbeat.done = heartbeat.claimed.done
        batch.clear()

    with reading.open_document(
        ReadPages(path=str(file), media_type=PDF, limits=limits),
        reader=readers.of_this_process(context.settings),
        tenant_id=event.tenantid,
        while_waiting=heartbeat.beat,
    ) as opened:
        heartbeat.total = min(opened.opened.page_count, limits.pages)
        written_at = monotonic()
        for page in opened.pages():
            if page.number <= heartbeat.claimed.done:
                continue  # written by an earlier delivery
            batch.append(page)
            if (
                sum(map(row_count, batch)) >= ROWS_MAX
                or monotonic() - written_at >= WRITE_EVERY.total_seconds()
            ):
                write()
                written_at = monotonic()
        if batch:
            write()
        with context.transaction() as session:
            following = record.end_reading(
                session,
                heartbeat.claimed,
                document,
                revision_id,
                end=EndOfReading(page_count=opened.opened.page_count, read=opened.summary),
                is_ocr_available=False,
                settings=context.settings,
                event_context=_event_context(session, event, delivery),
            )
    log.info(
        "ingest.document_read",
        document_id=str(document.document_id),
        pages=heartbeat.done,
        following=following,
    )
