"""Recognises the pages of a document in sandbox children; the worker's side."""

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from pipeline.ingest import frames
from pipeline.ingest.errors import PAGE_REASONS, DocumentCrashed, DocumentError
from pipeline.ingest.frames import DocumentRead, PageReading, ReadingFailed, Recognize
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

GRACE: Final = timedelta(seconds=5)
"""CPU time beyond a limit: the child ends a page itself, except in a call that takes no limit."""

FRAME_MAX: Final = 16 * MIB

NO_TIME: Final = "Recognising the text of other pages took the time allowed for the document."
GIVEN_UP: Final = "The pages before this one made the text recognition end again and again."

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class LeftPages:
    """Pages without a result, in order; `reason` is a sentence for clients."""

    numbers: tuple[int, ...]
    outcome: Outcome = Outcome.NEEDS_OCR
    reason: str


class DocumentRecognition:
    """Recognises pages; a page that kills its child is left, and the next one goes on.

    Attributes:
        read: language and key phrases of the pages; None if no child has recognised all of them.
    """

    def __init__(
        self,
        request: Recognize,
        *,
        reader: Reader,
        tenant_id: TenantId,
        deaths_max: int,
        while_waiting: Callable[[], None],
    ) -> None:
        """Prepare; `run` starts the first child.

        Args:
            request: the pages, and `time_left` for all of them.
            reader: the reader of this process.
            tenant_id: owner of the document.
            deaths_max: children that pages in a row may kill before the others are left.
            while_waiting: called while the worker waits; what it raises ends the recognition.
        """
        self.read: DocumentRead | None = None
        self._request = request
        self._reader = reader
        self._tenant_id = tenant_id
        self._deaths_max = deaths_max
        self._while_waiting = while_waiting
        self._left = deque(request.pages)
        self._used = timedelta(0)
        self._answer_now: Answer | None = None

    @property
    def used(self) -> timedelta:
        """CPU time that the document has cost so far."""
        return self._used + (self._answer_now.cpu if self._answer_now else timedelta(0))

    def run(self) -> Generator[PageReading | LeftPages, None, None]:
        """Yield every page of the request, in order: recognised, or left.

        Raises:
            DocumentError: the document does not open.
            DocumentCrashed: the child was killed from outside.
        """
        deaths = 0
        while self._left:
            before = len(self._left)
            killed_by = yield from self._answer()
            if killed_by is None or not self._left:
                break
            deaths = deaths + 1 if len(self._left) == before else 1
            self.read = None
            yield LeftPages(
                numbers=(self._left.popleft(),), outcome=killed_by, reason=PAGE_REASONS[killed_by]
            )
            if deaths == self._deaths_max:
                break
        if self._left:
            reason = GIVEN_UP if deaths == self._deaths_max else NO_TIME
            yield LeftPages(numbers=tuple(self._left), reason=reason)

    def _answer(self) -> Generator[PageReading, None, Outcome | None]:
        """Yield the pages that one child recognises.

        Returns:
            What the first page that is left did to the child; None if no page is left, or the time
            for the document is over.
        """
        request = msgspec.structs.replace(
            self._request,
            pages=tuple(self._left),
            time_left=max(self._request.time_left - self.used, timedelta(0)),
        )
        idle = request.opening.limits.idle
        try:
            with self._reader.answer(
                frames.encode(request),
                tenant_id=self._tenant_id,
                child_limits=ChildLimits(memory_bytes=request.opening.limits.memory_bytes),
                limits=AnswerLimits(
                    idle=idle,
                    cpu=request.time_left,
                    frame_cpu=2 * request.page_timeout + GRACE,
                    frame_bytes=FRAME_MAX,
                    output_bytes=FRAME_MAX * len(request.pages),
                ),
                while_waiting=self._while_waiting,
            ) as answer:
                self._answer_now = answer
                try:
                    yield from self._pages(answer, is_whole=request.pages == self._request.pages)
                finally:
                    answer.end()
                    self._used, self._answer_now = self.used, None
        except ChildTimedOut as timeout:
            if timeout.exhausted is TimeBudget.IDLE:
                self._used += idle
            return None if timeout.exhausted is TimeBudget.CPU else Outcome.TIMEOUT_PAGE
        except (ChildOutOfMemory, ChildOutputTooLarge):
            return Outcome.OUT_OF_MEMORY
        except ChildDied as death:
            log.warning(
                "ocr.child_died",
                page=self._left[0] if self._left else None,
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

    def _pages(self, answer: Answer, *, is_whole: bool) -> Iterator[PageReading]:
        """Yield the pages of an answer.

        Raises:
            DocumentError: the document does not open.
        """
        for frame in answer:
            match frames.decode(frame):
                case PageReading() as page:
                    self._left.popleft()
                    yield page
                case DocumentRead() as read:
                    self.read = read if is_whole else None
                case ReadingFailed(outcome=outcome, reason=reason):
                    raise DocumentError(reason, outcome=outcome)
