"""Reads the pages of a document in sandbox children; the worker's side.

A document may kill a child: by a crash of a parser, by its memory, or by a page that never ends. The
reading then goes on in a fresh child. The page is tried again, with the other engine unless someone
killed the child; a page that kills a second child is recorded, and the next page goes on.

Use::

    reading = DocumentReading(opening, …)
    for each in reading.run():
        …  # a page to write, or what to record with the pages
    reading.ending
"""

import signal
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec
import structlog

from pipeline.ingest import frames
from pipeline.ingest.errors import (
    PAGE_REASONS,
    DocumentError,
    DocumentLimitExceeded,
    DocumentQuarantined,
)
from pipeline.ingest.frames import (
    DocumentOpened,
    DocumentRead,
    Opening,
    PageReading,
    PagesSoFar,
    ReadingFailed,
    ReadingPaused,
    ReadPages,
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
from schemas.ids import TenantId
from schemas.outcomes import Outcome
from schemas.settings import MIB

# Bytes of output per byte of text; offsets, labels and normal forms need far less.
_OUTPUT_PER_TEXT: Final = 32

GRACE: Final = timedelta(seconds=1)
"""CPU time beyond a limit in which the child ends by itself, and the answer is kept."""

_SUSPECT: Final = frozenset({Outcome.OUT_OF_MEMORY, Outcome.TIMEOUT_PAGE})
"""Outcomes of a page that leave its child in an unknown state."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Lane:
    """How much a reading may take from others.

    Attributes:
        cpu_share: CPU time after which the reading pauses; None to read to the end.
        niceness: of the child.
    """

    cpu_share: timedelta | None
    niceness: int


class SoFar(msgspec.Struct, frozen=True, kw_only=True):
    """What the next worker needs to go on; the checkpoint of the step.

    Attributes:
        deaths: children that the document has killed.
        other_engine_next: the default engine killed a child on the first page that is not written.
        other_engine_only: the default engine killed a child when it opened the document.
        seconds: of the CPU time for the document that are used.
        text_bytes: text of the pages so far.
        enricher_state: what the enricher keeps of them.
        page_count: pages of the document, once it was open.
    """

    deaths: int = 0
    other_engine_next: bool = False
    other_engine_only: bool = False
    seconds: float = 0.0
    text_bytes: int = 0
    enricher_state: bytes = b""
    page_count: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a reading ended.

    Attributes:
        page_count: pages of the document, including those beyond a limit; None if the CPU share
            did not suffice to open it.
        read: what the child said last.
        is_paused: whether the CPU share was used up before the last page.
    """

    page_count: int | None
    read: DocumentRead
    is_paused: bool


class DocumentReading:
    """The reading of one document, page after page, from the first page that is not written.

    Attributes:
        so_far: what the next worker needs to go on after the pages that were yielded.
        ending: available once `run` is exhausted.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        reader: Reader,
        tenant_id: TenantId,
        lane: Lane,
        done: int,
        so_far: SoFar,
        while_waiting: Callable[[], None],
    ) -> None:
        self.so_far = so_far
        self._opening = opening
        self._limits = opening.limits
        self._reader = reader
        self._tenant_id = tenant_id
        self._lane = lane
        self._done = done
        self._while_waiting = while_waiting
        self._cpu_used = timedelta(0)
        self._is_open = False
        self._answer: Answer | None = None
        self._seconds_before = so_far.seconds
        self._ending: Ending | None = None

    @property
    def ending(self) -> Ending:
        if self._ending is None:
            raise RuntimeError("the reading has not ended")
        return self._ending

    def run(self) -> Generator[PageReading | SoFar]:
        """Yield each page, and after some pages what to record with them; callable once.

        What `while_waiting` raises ends the reading. What `run` yields after the death of a child
        must be recorded before the next step: it counts the deaths.

        Raises:
            DocumentError: the document cannot be opened, or it exceeds a limit as a whole.
            DocumentQuarantined: the document has killed too many children.
        """
        while self._ending is None:
            if self._time_left <= timedelta(0):
                self._end_for_lack_of_time()
                return
            request = self._request()
            if request.cpu_share is not None and request.cpu_share <= timedelta(0):
                self._end(is_paused=True)
                return
            self._is_open = False
            try:
                yield from self._answers_to(request)
            except (ChildDied, ChildOutOfMemory, ChildOutputTooLarge, ChildTimedOut) as ending:
                yield from self._after_early_end(request, ending)

    def _answers_to(self, request: ReadPages) -> Iterator[PageReading | SoFar]:
        """Ask one child for the next pages."""
        self._seconds_before = self.so_far.seconds
        is_suspect = False
        with self._reader.answer(
            frames.encode(request),
            tenant_id=self._tenant_id,
            child_limits=ChildLimits(
                memory_bytes=self._limits.memory_bytes, niceness=self._lane.niceness
            ),
            limits=self._answer_limits(request),
            while_waiting=self._wait,
        ) as answer:
            self._answer = answer
            try:
                for frame in answer:
                    match frames.decode(frame):
                        case DocumentOpened(page_count=page_count):
                            self._is_open = True
                            self._note(page_count=page_count)
                        case PageReading() as page:
                            is_suspect |= page.outcome in _SUSPECT
                            yield self._next_page(page)
                        case PagesSoFar(enricher_state=state):
                            self._note(enricher_state=state)
                            self._note_time(answer)
                            yield self.so_far
                        case DocumentRead() as read:
                            # After a single page, another request reads the rest.
                            if request.last_page is None or read.cut is Outcome.LIMIT_TEXT:
                                self._end(read)
                        case ReadingPaused():
                            self._end(is_paused=True)
                        case ReadingFailed() as failed:
                            yield from self._after_failure(request, failed)
                        case other:
                            raise TypeError(f"the child sent {type(other).__name__}")
            finally:
                answer.end()
                self._cpu_used += answer.cpu
                self._note_time(answer)
        if is_suspect:
            self._reader.close()

    def _request(self) -> ReadPages:
        so_far = self.so_far
        first_page = self._done + 1
        share = self._lane.cpu_share
        use_other_engine = so_far.other_engine_only or so_far.other_engine_next
        return ReadPages(
            opening=msgspec.structs.replace(self._opening, use_other_engine=use_other_engine),
            first_page=first_page,
            last_page=first_page if so_far.other_engine_next else None,
            text_bytes_before=so_far.text_bytes,
            enricher_state=so_far.enricher_state,
            time_left=self._time_left,
            cpu_share=None if share is None else share - self._cpu_used,
        )

    def _answer_limits(self, request: ReadPages) -> AnswerLimits:
        limits = self._limits
        cpu = request.time_left if request.cpu_share is None else request.cpu_share
        return AnswerLimits(
            idle=limits.idle,
            cpu=min(cpu, request.time_left) + GRACE,
            # The child limits its two steps of a page itself; the rest is a call that the child
            # cannot interrupt.
            frame_cpu=2 * limits.page_timeout + GRACE,
            frame_bytes=_OUTPUT_PER_TEXT * limits.page_characters + MIB,
            output_bytes=_OUTPUT_PER_TEXT * limits.text_bytes + 1024 * limits.pages + MIB,
        )

    @property
    def _time_left(self) -> timedelta:
        return self._limits.timeout - timedelta(seconds=self.so_far.seconds)

    def _next_page(self, page: PageReading) -> PageReading:
        self._done = page.number
        self._note(
            text_bytes=self.so_far.text_bytes + len(page.text.encode()), other_engine_next=False
        )
        return page

    def _count_death(self) -> None:
        """Count a child that the document has killed.

        Raises:
            DocumentQuarantined: it was one too many.
        """
        self._note(deaths=self.so_far.deaths + 1)
        if self.so_far.deaths >= self._limits.deaths:
            raise DocumentQuarantined

    def _after_early_end(
        self,
        request: ReadPages,
        ending: ChildDied | ChildOutOfMemory | ChildOutputTooLarge | ChildTimedOut,
    ) -> Iterator[PageReading | SoFar]:
        if self._ending is not None:
            log.info("ingest.child_died_after_its_answer", reason=str(ending))
            return
        match ending:
            case ChildOutputTooLarge():
                raise DocumentLimitExceeded(outcome=Outcome.LIMIT_TEXT)
            case ChildTimedOut(exhausted=TimeBudget.FRAME_CPU | TimeBudget.IDLE):
                # The time for the document bounds how often this happens.
                if ending.exhausted is TimeBudget.IDLE:
                    self._note(seconds=self.so_far.seconds + self._limits.idle.total_seconds())
                yield from self._after_death(request, Outcome.TIMEOUT_PAGE)
            case ChildTimedOut(exhausted=TimeBudget.CPU) if request.cpu_share is not None:
                self._end(is_paused=True)
            case ChildTimedOut():
                self._end_for_lack_of_time()
            case ChildOutOfMemory():
                self._count_death()
                yield from self._after_death(request, Outcome.OUT_OF_MEMORY)
            case ChildDied():
                log.warning(
                    "ingest.child_died",
                    page=self._done + 1,
                    signal_number=ending.signal_number,
                    exit_status=ending.exit_status,
                    child_traceback=ending.traceback,
                )
                self._count_death()
                if ending.signal_number == signal.SIGKILL:
                    # An operator, or the kernel when memory is short: the page may be innocent.
                    yield self.so_far
                else:
                    yield from self._after_death(request, Outcome.CRASHED)

    def _after_death(self, request: ReadPages, outcome: Outcome) -> Iterator[PageReading | SoFar]:
        """Choose how the reading goes on after a page killed its child, or the opening did."""
        if self._are_all_pages_read:
            self._end_without_summary()
        elif request.last_page is not None and self._done >= request.last_page:
            pass  # the page is read; another request reads the next one
        elif self._is_open or request.last_page is not None:
            if request.opening.use_other_engine:
                yield self._failed_page(outcome)
            else:
                self._note(other_engine_next=True)
        elif request.opening.use_other_engine:
            is_timeout = outcome is Outcome.TIMEOUT_PAGE
            raise DocumentError(outcome=Outcome.TIMEOUT_DOCUMENT if is_timeout else outcome)
        else:
            self._note(other_engine_only=True)
        yield self.so_far

    def _after_failure(
        self, request: ReadPages, failed: ReadingFailed
    ) -> Iterator[PageReading | SoFar]:
        if request.last_page is None:
            if failed.outcome is Outcome.TIMEOUT_DOCUMENT:
                self._end_for_lack_of_time()
                return
            raise DocumentError(failed.reason, outcome=failed.outcome)
        # Only the other engine cannot open the document.
        yield self._failed_page(Outcome.CRASHED)

    def _failed_page(self, outcome: Outcome) -> PageReading:
        return self._next_page(
            PageReading(number=self._done + 1, outcome=outcome, reason=PAGE_REASONS[outcome])
        )

    @property
    def _are_all_pages_read(self) -> bool:
        page_count = self.so_far.page_count
        return page_count is not None and self._done >= min(page_count, self._limits.pages)

    def _end(self, read: DocumentRead | None = None, *, is_paused: bool = False) -> None:
        self._ending = Ending(
            page_count=self.so_far.page_count, read=read or DocumentRead(), is_paused=is_paused
        )

    def _end_without_summary(self) -> None:
        """End after the last page; language and key phrases were being found."""
        page_count = self.so_far.page_count
        if page_count is not None and page_count > self._limits.pages:
            cut = Outcome.LIMIT_PAGES
            self._end(DocumentRead(cut=cut, cut_reason=self._limits.cut_reason(cut)))
        else:
            self._end()

    def _end_for_lack_of_time(self) -> None:
        """End with the pages so far.

        Raises:
            DocumentError: the document was never open.
        """
        if self.so_far.page_count is None:
            raise DocumentError(outcome=Outcome.TIMEOUT_DOCUMENT)
        cut = Outcome.TIMEOUT_DOCUMENT
        self._end(DocumentRead(cut=cut, cut_reason=self._limits.cut_reason(cut)))

    def _wait(self) -> None:
        if self._answer is not None:
            self._note_time(self._answer)
        self._while_waiting()

    def _note_time(self, answer: Answer) -> None:
        """Count the CPU time of a child, also of one that dies with its worker on its first page."""
        self._note(seconds=self._seconds_before + answer.cpu.total_seconds())

    def _note(self, **changed: Any) -> None:  # noqa: ANN401  # values of the fields
        self.so_far = msgspec.structs.replace(self.so_far, **changed)
