"""Finds the tables and figures of a document in sandbox children; the worker's side."""

import signal
from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from pipeline.ingest import frames
from pipeline.ingest.errors import PAGE_REASONS, DocumentCrashed, DocumentError
from pipeline.ingest.frames import (
    DocumentOpened,
    FindTables,
    LayoutFound,
    ReadingFailed,
    TablesFound,
)
from pipeline.ingest.sandbox.fork import (
    Answer,
    AnswerLimits,
    ChildDied,
    ChildLimits,
    ChildOutOfMemory,
    ChildOutputTooLarge,
    ChildTimedOut,
    TimeBudget,
)
from pipeline.ingest.sandbox.reader import Reader
from pipeline.ingest.whole_tables import UnsearchedPages
from schemas.ids import TenantId
from schemas.outcomes import Outcome
from schemas.settings import MIB

GRACE: Final = timedelta(seconds=5)
"""CPU time beyond a limit: the child ends a page itself, except in a call that takes no limit."""

FRAME_MAX: Final = 32 * MIB
"""Of one page: the most cells with the longest text would be more, and are a hostile document."""

OUTPUT_MAX: Final = 512 * MIB

NO_TIME: Final = "The tables of other pages took the time allowed for the document."
GIVEN_UP: Final = "The pages before this one made the search for tables end again and again."

log = structlog.stdlib.get_logger(__name__)


class TablesSearch:
    """Looks for tables, page by page; a page that kills its child is left out, and the next one follows."""

    def __init__(
        self,
        request: FindTables,
        *,
        last_page: int,
        reader: Reader,
        tenant_id: TenantId,
        niceness: int,
        deaths_max: int,
        while_waiting: Callable[[], None],
    ) -> None:
        """Prepare; `run` starts the first child.

        Args:
            request: the first page, and `time_left` for all of them.
            last_page: the last page.
            reader: the reader of this process.
            tenant_id: owner of the document.
            niceness: of the children.
            deaths_max: children that pages in a row may kill before the others are left out.
            while_waiting: called while the worker waits; what it raises ends the search.
        """
        self._request = request
        self._last_page = last_page
        self._reader = reader
        self._tenant_id = tenant_id
        self._niceness = niceness
        self._deaths_max = deaths_max
        self._while_waiting = while_waiting
        self._next = request.first_page
        self._used = timedelta(0)
        self._answer_now: Answer | None = None

    @property
    def used(self) -> timedelta:
        """CPU time that the document has cost so far."""
        return self._used + (self._answer_now.cpu if self._answer_now else timedelta(0))

    def run(self) -> Generator[LayoutFound | UnsearchedPages]:
        """Yield every page up to the last one, in order.

        Raises:
            DocumentError: the document does not open.
            DocumentCrashed: a child was killed from outside.
        """
        deaths = 0
        while self._next <= self._last_page:
            before = self._next
            killed_by = yield from self._answer()
            if killed_by is None or self._next > self._last_page:
                break
            deaths = deaths + 1 if self._next == before else 1
            yield self._left_out(self._next, killed_by, PAGE_REASONS[killed_by])
            if deaths == self._deaths_max:
                break
        if self._next <= self._last_page:
            is_given_up = deaths == self._deaths_max
            yield self._left_out(
                self._last_page,
                Outcome.CRASHED if is_given_up else Outcome.TIMEOUT_DOCUMENT,
                GIVEN_UP if is_given_up else NO_TIME,
            )

    def _left_out(self, last: int, outcome: Outcome, reason: str) -> UnsearchedPages:
        left = UnsearchedPages(first=self._next, last=last, outcome=outcome, reason=reason)
        self._next = last + 1
        return left

    def _answer(self) -> Generator[LayoutFound, None, Outcome | None]:
        """Yield the pages that one child looks at.

        Returns:
            What the next page did to the child; None if no page is left, or the time for the
            document is over.
        """
        time_left = max(self._request.time_left - self.used, timedelta(0))
        idle = self._request.opening.limits.idle
        request = msgspec.structs.replace(
            self._request, first_page=self._next, last_page=self._last_page, time_left=time_left
        )
        try:
            with self._reader.answer(
                frames.encode(request),
                tenant_id=self._tenant_id,
                child_limits=ChildLimits(
                    memory_bytes=request.opening.limits.memory_bytes, niceness=self._niceness
                ),
                limits=AnswerLimits(
                    idle=idle,
                    cpu=time_left + GRACE,
                    frame_cpu=request.page_timeout + GRACE,
                    frame_bytes=FRAME_MAX,
                    output_bytes=OUTPUT_MAX,
                ),
                while_waiting=self._while_waiting,
            ) as answer:
                self._answer_now = answer
                try:
                    yield from self._pages(answer)
                finally:
                    answer.end()
                    self._used, self._answer_now = self.used, None
        except ChildTimedOut as timeout:
            if timeout.exhausted is TimeBudget.IDLE:
                self._used += idle
            return None if timeout.exhausted is TimeBudget.CPU else Outcome.TIMEOUT_PAGE
        except ChildOutOfMemory:
            return Outcome.OUT_OF_MEMORY
        except ChildOutputTooLarge:
            return Outcome.LIMIT_PAGE_CONTENT
        except ChildDied as death:
            log.warning(
                "tables.child_died",
                page=self._next,
                signal_number=death.signal_number,
                exit_status=death.exit_status,
                child_traceback=death.traceback,
            )
            if death.signal_number == signal.SIGKILL:
                # An operator, or the kernel when memory is short: the page may be innocent.
                raise DocumentCrashed(
                    signal_number=death.signal_number, exit_status=death.exit_status
                ) from None
            return Outcome.CRASHED
        return None

    def _pages(self, answer: Answer) -> Iterator[LayoutFound]:
        """Yield the pages of an answer.

        Raises:
            DocumentError: the document does not open.
        """
        for frame in answer:
            match frames.decode(frame):
                case DocumentOpened(page_count=page_count):
                    self._last_page = min(self._last_page, page_count)
                case LayoutFound() as page:
                    self._next = page.number + 1
                    yield page
                case TablesFound():
                    pass
                case ReadingFailed(outcome=outcome, reason=reason):
                    raise DocumentError(reason, outcome=outcome)
                case other:
                    raise TypeError(f"the child sent {type(other).__name__}")
