"""The tasks that read the pages of a document: `upload.stored` → pages → `document.ingested`.

`IngestDocument` has a share of CPU time for each document. `IngestRest` reads the pages for which
the share did not suffice, in a worker of its own and with less of the CPU.
"""

from abc import abstractmethod
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final

import msgspec
import structlog
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.ingest import originals, passwords, readers, record, writer
from pipeline.ingest.after_publish import Following
from pipeline.ingest.applied_event import EventContext
from pipeline.ingest.batches import PageBatches
from pipeline.ingest.document_time import Slice, SliceOver
from pipeline.ingest.errors import DocumentOutOfMemory, DocumentQuarantined
from pipeline.ingest.frames import PageReading
from pipeline.ingest.ocr import engines
from pipeline.ingest.reading import DocumentReading, Ending, Lane, SoFar
from pipeline.ingest.record import DocumentToRead, Duplicate, EndOfReading
from pipeline.ingest.sandbox.limits import cpu_share
from pipeline.ingest.version import pipeline_version
from pipeline.messaging.event_task import MessageDelivery, WorkerKeepsDying
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.ids import RevisionId
from schemas.lifecycle import StepStatus
from schemas.steps import StepName

log = structlog.stdlib.get_logger(__name__)

REST_NICENESS: Final = 10
"""A child of `IngestRest` gets a tenth of the CPU beside a child of the interactive lane."""


class ReadPagesTask(StepTask[None]):
    """Reads the pages after those that are written, and publishes the revision after the last one."""

    abstract = True

    @abstractmethod
    def lane(self, context: Context, document: DocumentToRead) -> Lane:
        """Return how much the reading may take from others."""

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
        originals.check_size(document, size_max=context.settings.pdf_file_max)
        version = pipeline_version(
            context.settings, ocr=context.settings, passages=context.settings
        )
        with context.transaction() as session:
            revision_id = record.begin_revision(
                session,
                document,
                tenant_id=event.tenantid,
                pipeline_version=version,
            )
            duplicate = record.find_duplicate(
                session, document, tenant_id=event.tenantid, pipeline_version=version
            )
            password = passwords.password_of(session, document.upload_id, context.settings.key_ring)
        work = _Work(
            context=context,
            document=document,
            revision_id=revision_id,
            password=password,
            event=event,
            delivery=delivery,
        )
        if not claimed.is_first:
            _discard_leftovers(work, claimed)
        if duplicate is not None:
            claimed = _copy(work, claimed, duplicate)
            if claimed.done == duplicate.page_count:
                end = EndOfReading(
                    page_count=duplicate.page_count,
                    read=duplicate.read,
                    reused_from=duplicate.revision_id,
                )
                _end(work, claimed, end)
                return
        batches = PageBatches(
            context,
            claimed,
            document=document,
            revision_id=revision_id,
            so_far=msgspec.convert(claimed.checkpoint or {}, SoFar),
        )
        ending = self._read(work, batches)
        end = EndOfReading(
            page_count=ending.page_count, read=ending.read, has_more_pages=ending.is_paused
        )
        _end(work, batches.claimed, end, batches=batches)

    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        return record.record_failed(
            session,
            record.document_of(event),
            name=self.step,
            error=DocumentQuarantined() if isinstance(error, WorkerKeepsDying) else error,
            settings=current_context().settings,
            event_context=EventContext.now_in(session, event, traceparent=delivery.traceparent),
        )

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        if status is StepStatus.CANCELLED:
            with context.transaction() as session:
                record.delete_purged(session, record.document_of(event))

    def _read(self, work: "_Work", batches: PageBatches) -> Ending:
        """Read pages in children, and write all but the last of them."""
        context, document = work.context, work.document
        with originals.downloaded(context, document, heartbeat=batches.write) as file:
            opening = originals.opening_of(
                document, file, password=work.password, settings=context.settings
            )
            slice_ = Slice(context.settings)

            def while_waiting() -> None:
                batches.note_time(reading.so_far.seconds)
                batches.beat()

            reading = DocumentReading(
                opening,
                reader=readers.of_this_process(context.settings),
                tenant_id=batches.claimed.tenant_id,
                lane=self.lane(context, document),
                done=batches.claimed.done,
                so_far=batches.so_far,
                while_waiting=while_waiting,
            )
            try:
                _write_all_but_the_last(
                    reading, batches, pages_max=opening.limits.pages, slice_=slice_
                )
            except MemoryError as error:
                # It would end the whole Celery worker, and every next worker that receives the
                # document.
                raise DocumentOutOfMemory from error
        return reading.ending


class IngestDocument(ReadPagesTask):
    """Reads a stored document as far as its share of CPU time suffices."""

    name = "tasks.ingest_document"
    home_queue: ClassVar[str] = queues.DOCUMENT_PROCESSING
    step: ClassVar[StepName] = StepName.INGEST

    def lane(self, context: Context, document: DocumentToRead) -> Lane:
        share = cpu_share(document.size, longest=context.settings.read_cpu_share)
        return Lane(cpu_share=share, niceness=0)


class IngestRest(ReadPagesTask):
    """Reads the other pages of a document, however long its deadline allows."""

    name = "tasks.ingest_rest"
    home_queue: ClassVar[str] = queues.BATCH_PROCESSING
    step: ClassVar[StepName] = StepName.INGEST_REST

    def lane(self, context: Context, document: DocumentToRead) -> Lane:  # noqa: ARG002  # the same for all
        return Lane(cpu_share=None, niceness=REST_NICENESS)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A document, the revision that is written, and the event that is applied."""

    context: Context
    document: DocumentToRead
    revision_id: RevisionId
    password: str | None
    event: Envelope
    delivery: MessageDelivery


def _discard_leftovers(work: _Work, claimed: ClaimedStep) -> None:
    """Delete the pages after `done`: a retry reads a document from its first page again."""
    is_over = False
    while not is_over:
        with work.context.transaction() as session:
            is_over = writer.discard_leftovers(
                session,
                claimed,
                document=work.document,
                revision_id=work.revision_id,
                settings=work.context.settings,
            )


def _copy(work: _Work, claimed: ClaimedStep, duplicate: Duplicate) -> ClaimedStep:
    """Copy the pages of a duplicate; fewer than all if it is deleted meanwhile."""
    before = -1
    while before < claimed.done < duplicate.page_count:
        before = claimed.done
        with work.context.transaction() as session:
            claimed = writer.copy_pages(
                session,
                claimed,
                document=work.document,
                revision_id=work.revision_id,
                duplicate=duplicate,
                total=duplicate.page_count,
                settings=work.context.settings,
            )
    return claimed


def _write_all_but_the_last(
    reading: DocumentReading, batches: PageBatches, *, pages_max: int, slice_: Slice
) -> None:
    """Write the pages of a reading; the last ones stay in `batches`, for the end of the step.

    Raises:
        SliceOver: the next delivery goes on after the last page; all before are written.
    """
    with closing(reading.run()) as steps:
        for step in steps:
            is_after_death = reading.so_far.deaths > batches.so_far.deaths
            batches.so_far = reading.so_far
            if reading.so_far.page_count is not None:
                batches.total = min(reading.so_far.page_count, pages_max)
            if isinstance(step, PageReading):
                batches.add(step)
            if is_after_death:
                batches.write()
            else:
                batches.beat()
            # What the enricher keeps belongs to the last page then.
            if isinstance(step, SoFar) and slice_.is_over:
                batches.write()
                raise SliceOver
    batches.so_far = reading.so_far


def _end(
    work: _Work, claimed: ClaimedStep, end: EndOfReading, *, batches: PageBatches | None = None
) -> None:
    """Write the last pages and end the step, in one transaction."""
    with work.context.transaction() as session:
        # Before the step, which the last pages lock.
        record.lock_document(session, work.document, is_changed=True)
        if batches is not None:
            claimed = batches.write_in(session)
        goes_on = record.end_reading(
            session,
            claimed,
            work.document,
            work.revision_id,
            end=end,
            is_ocr_available=partial(engines.is_available, session, work.context.settings),
            settings=work.context.settings,
            event_context=EventContext.now_in(
                session, work.event, traceparent=work.delivery.traceparent
            ),
            following=Following.from_settings(work.context.settings),
        )
    log.info(
        "ingest.pages_read",
        document_id=str(work.document.document_id),
        pages=claimed.done,
        following=goes_on,
    )
