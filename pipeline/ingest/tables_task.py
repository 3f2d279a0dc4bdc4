"""`document.tables_requested` → tables and figures of a published revision."""

from collections.abc import Generator
from contextlib import closing
from datetime import timedelta
from time import monotonic
from typing import ClassVar, Final

import structlog
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.ingest import (
    document_time,
    originals,
    passage_rows,
    passwords,
    readers,
    record,
    tables_record,
)
from pipeline.ingest.after_publish import Following
from pipeline.ingest.applied_event import EventContext
from pipeline.ingest.document_time import Slice, SliceOver
from pipeline.ingest.extractors.layout import LayoutLimits
from pipeline.ingest.frames import FindTables, LayoutFound, Opening
from pipeline.ingest.tables_record import Work
from pipeline.ingest.tables_search import TablesSearch
from pipeline.ingest.whole_tables import (
    Settled,
    TableLimits,
    UnsearchedPages,
    WholeTables,
)
from pipeline.messaging.event_task import MessageDelivery
from pipeline.settings import Settings
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.documents import TablesRequested
from schemas.events.envelope import Envelope
from schemas.lifecycle import StepStatus
from schemas.outcomes import Outcome
from schemas.steps import StepName

NICENESS: Final = 10
"""Of the children: the documents that are being read come first."""

WRITE_EVERY: Final = timedelta(seconds=1)
"""Longest time for which final tables are not written; then clients see them."""

PLACES_MAX: Final = 50_000
"""Places of the tables of one transaction, about; bounds the memory of the worker."""

CELLS_PER_PAGE: Final = 10_000
"""Cells of all tables of a page; a page of small print in narrow columns has 2,000."""

log = structlog.stdlib.get_logger(__name__)


class FindTablesOfDocument(StepTask[None]):
    """Finds tables and figures, writes them page by page, and their passages for search."""

    name = "tasks.find_tables"
    home_queue: ClassVar[str] = queues.BATCH_PROCESSING
    step: ClassVar[StepName] = StepName.TABLES

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
        document = _request_of(event)
        with context.transaction() as session:
            work = tables_record.begin(session, document)
            password = passwords.password_of(session, document.upload_id, context.settings.key_ring)
        search = _Search(context, claimed, document=document, work=work)
        search.copy()
        if not search.is_done:
            with originals.downloaded(context, document, heartbeat=search.heartbeat.renew) as file:
                search.run(
                    originals.opening_of(
                        document, file, password=password, settings=context.settings
                    )
                )
        with context.transaction() as session:
            claimed, work = search.write_last_in(session)
            tables_record.end(
                session,
                claimed,
                document,
                work,
                following=Following.from_settings(context.settings),
                settings=context.settings,
                event_context=EventContext.now_in(session, event, traceparent=delivery.traceparent),
            )
        log.info("tables.document_searched", document_id=str(document.document_id))

    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        settings = current_context().settings
        return tables_record.record_failed(
            session,
            _request_of(event),
            error=error,
            following=Following.from_settings(settings),
            settings=settings,
            event_context=EventContext.now_in(session, event, traceparent=delivery.traceparent),
        )

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        if status is StepStatus.CANCELLED:
            with context.transaction() as session:
                record.delete_purged(session, _request_of(event))


class _Search:
    """The search of one document, and what is found but not written.

    Attributes:
        heartbeat: of the step; `heartbeat.claimed` has its progress.
        work: what is to do, with the reasons that are recorded.
    """

    def __init__(
        self, context: Context, claimed: ClaimedStep, *, document: TablesRequested, work: Work
    ) -> None:
        self.heartbeat = Heartbeat(context, claimed)
        self.work = work
        self._context = context
        self.heartbeat.total = work.page_count
        self._settings = context.settings
        self._document = document
        self._found = self._whole_tables()
        self._due = monotonic() + WRITE_EVERY.total_seconds()

    @property
    def is_done(self) -> bool:
        """Whether no page is left; unknown, and so false, without the number of pages."""
        count = self.work.page_count
        return count is not None and self.heartbeat.claimed.done >= count

    def copy(self) -> None:
        """Take what a document with the same bytes has; the rest is searched if it is deleted meanwhile."""
        while not self.is_done:
            with self._context.transaction() as session:
                found = tables_record.next_to_copy(
                    session, self.work, done=self.heartbeat.claimed.done
                )
                if found is None or found.last_page <= self.heartbeat.claimed.done:
                    break
                written = self._write_in(session, found)
            self._written(written)
        self._found = self._whole_tables()

    def run(self, opening: Opening) -> None:
        """Search the pages that are left, as far as limits allow; the last ones are not written.

        Raises:
            DocumentError: the document does not open.
            DocumentCrashed: the child was killed from outside.
            StepCancelled, DocumentGone, RevisionReplaced, LeaseLost: see `tables_record.write`.
            SliceOver: the next delivery goes on after the last page that is written.
        """
        slice_ = Slice(self._settings)
        settings = self._settings
        allowed = min(settings.tables_pages_max, opening.limits.pages)
        page_count = self.work.page_count or allowed
        self.heartbeat.total = page_count
        with closing(self._pages(opening, last_page=min(page_count, allowed))) as pages:
            for page in pages:
                if self._add(page) and slice_.is_over:
                    raise SliceOver
        if page_count > allowed:
            self._add(
                UnsearchedPages(
                    first=max(allowed, self._found.last_page) + 1,
                    last=page_count,
                    outcome=Outcome.LIMIT_PAGES,
                    reason=f"Tables are looked for on the first {allowed} pages.",
                )
            )
        self._found.close()

    def write_last_in(self, session: Session) -> tuple[ClaimedStep, Work]:
        """Write what is left, in a transaction of the caller that has locked nothing."""
        found = self._found.take()
        if found.last_page <= self.heartbeat.claimed.done:
            return self.heartbeat.claimed, self.work
        return self._write_in(session, found)

    def _pages(
        self, opening: Opening, *, last_page: int
    ) -> Generator[LayoutFound | UnsearchedPages]:
        settings = self._settings
        used_before = document_time.used_before(self.heartbeat.claimed)
        request = FindTables(
            opening=opening,
            first_page=self.heartbeat.claimed.done + 1,
            limits=_page_limits(settings),
            page_timeout=settings.tables_page_timeout,
            time_left=settings.tables_timeout - used_before,
        )

        def note_time() -> None:
            used = used_before + search.used
            self.heartbeat.claimed = document_time.noted(self.heartbeat.claimed, used=used)

        def while_waiting() -> None:
            note_time()
            self.heartbeat.beat()

        search = TablesSearch(
            request,
            last_page=last_page,
            reader=readers.of_this_process(settings),
            tenant_id=self.heartbeat.claimed.tenant_id,
            niceness=NICENESS,
            deaths_max=settings.quarantine_after,
            while_waiting=while_waiting,
        )
        with closing(search.run()) as pages:
            for page in pages:
                note_time()
                yield page

    def _add(self, page: LayoutFound | UnsearchedPages) -> bool:
        """Keep a page; return whether what is final was written."""
        if isinstance(page, UnsearchedPages):
            self._found.skip(page)
        else:
            self._found.add(page)
        if self._found.places >= PLACES_MAX or monotonic() >= self._due:
            with self._context.transaction() as session:
                written = self._write_in(session, self._found.take())
            self._written(written)
            return True
        return False

    def _write_in(self, session: Session, found: Settled) -> tuple[ClaimedStep, Work]:
        return tables_record.write(
            session,
            self.heartbeat.claimed,
            self._document,
            self.work,
            found=found,
            total=self.heartbeat.total,
            budget=passage_rows.budget_of(self._settings),
            settings=self._settings,
        )

    def _written(self, written: tuple[ClaimedStep, Work]) -> None:
        self.heartbeat.claimed, self.work = written
        self.heartbeat.done = self.heartbeat.claimed.done
        self._due = monotonic() + WRITE_EVERY.total_seconds()

    def _whole_tables(self) -> WholeTables:
        return WholeTables(
            last_page=self.heartbeat.claimed.done,
            limits=TableLimits(
                cells=self._settings.table_cells_max, text_bytes=self._settings.table_text_max
            ),
        )


def _page_limits(settings: Settings) -> LayoutLimits:
    return LayoutLimits(
        tables=settings.tables_per_page_max,
        figures=settings.figures_per_page_max,
        cells=min(CELLS_PER_PAGE, settings.table_cells_max),
    )


def _request_of(event: Envelope) -> TablesRequested:
    if not isinstance(event.data, TablesRequested):
        raise TypeError(f"{event.type} was routed to a task that finds tables")
    return event.data
