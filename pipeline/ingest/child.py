"""The child's side: answers the requests of the worker about one document each."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from pipeline.enrich.annotations import PageAnnotations, PageLimits
from pipeline.enrich.enricher import Enricher
from pipeline.ingest import describing, finding, frames, recognizing, text
from pipeline.ingest.errors import PAGE_REASONS, DocumentError
from pipeline.ingest.extractors import registry
from pipeline.ingest.extractors.extractor import ExtractedPage, OpenDocument
from pipeline.ingest.frames import (
    Describe,
    DocumentOpened,
    DocumentRead,
    FindTables,
    Opening,
    PageReading,
    PageRendered,
    PagesSoFar,
    ReadingFailed,
    ReadingPaused,
    ReadPages,
    Recognize,
    Render,
)
from pipeline.ingest.sandbox.fork import Send, TimeLimitReached, time_limit
from schemas.outcomes import Outcome
from schemas.spans import RUNNING

SO_FAR_EVERY: Final = timedelta(seconds=0.5)
"""How often the worker learns what the next reading needs to go on."""

# A timer of zero seconds would be off.
_SHORTEST_LIMIT: Final = 0.001


def serve(request: bytes, send: Send, *, enricher: Enricher) -> None:
    """Answer a request of the worker."""
    warnings.simplefilter("ignore")  # the frames report defects of the document
    match frames.decode_request(request):
        case ReadPages() as reading:
            read_pages(reading, send, enricher=enricher)
        case Describe() as description:
            describe(description, send, enricher=enricher)
        case Render() as rendering:
            render(rendering, send)
        case Recognize() as recognition:
            recognize(recognition, send, enricher=enricher)
        case FindTables() as search:
            find_tables(search, send)


def read_pages(request: ReadPages, send: Send, *, enricher: Enricher) -> None:
    """Send `DocumentOpened`, the pages, and `DocumentRead` or `ReadingPaused`.

    Sends `ReadingFailed` alone if the document does not open.
    """
    budget = Budget(time_left=request.time_left, cpu_share=request.cpu_share)
    try:
        with opened(request.opening, budget=budget) as document:
            send(frames.encode(DocumentOpened(page_count=document.page_count)))
            pages = PageReader(document, request, enricher=enricher, budget=budget)
            for message in pages.read():
                send(frames.encode(message))
    except CpuShareUsed:
        send(frames.encode(ReadingPaused()))
    except NotOpened as failure:
        send(frames.encode(failure.message))


def describe(request: Describe, send: Send, *, enricher: Enricher) -> None:
    """Send `DocumentOpened` and each part of the description that can be read.

    Sends `ReadingFailed` alone if the document does not open.
    """
    budget = Budget(time_left=request.part_timeout, cpu_share=None)
    try:
        with opened(request.opening, budget=budget) as document:
            send(frames.encode(DocumentOpened(page_count=document.page_count)))
            for part in describing.parts(document, request, enricher=enricher):
                send(frames.encode(part))
    except NotOpened as failure:
        send(frames.encode(failure.message))


def render(request: Render, send: Send) -> None:
    """Send `DocumentOpened` and `PageRendered`.

    Sends `ReadingFailed` alone if the document does not open.
    """
    budget = Budget(time_left=request.part_timeout, cpu_share=None)
    try:
        with opened(request.opening, budget=budget) as document:
            send(frames.encode(DocumentOpened(page_count=document.page_count)))
            send(frames.encode(_rendered(document, request)))
    except NotOpened as failure:
        send(frames.encode(failure.message))


def _rendered(document: OpenDocument, request: Render) -> PageRendered:
    try:
        with time_limit(request.part_timeout):
            png = (
                describing.picture(document, number=request.page, side=request.side)
                if request.box is None
                else describing.part_of_page(
                    document, number=request.page, box=request.box, side=request.side
                )
            )
    except (Exception, TimeLimitReached) as error:  # noqa: BLE001  # a damaged page raises anything
        failed = page_failure_of(error)
        return PageRendered(outcome=failed.outcome, reason=failed.reason)
    return PageRendered(png=png)


def recognize(request: Recognize, send: Send, *, enricher: Enricher) -> None:
    """Send `DocumentOpened`, the recognised pages, and `DocumentRead`.

    Sends `ReadingFailed` alone if the document does not open.
    """
    budget = Budget(time_left=request.time_left, cpu_share=None)
    try:
        with opened(request.opening, budget=budget) as document:
            send(frames.encode(DocumentOpened(page_count=document.page_count)))
            for message in recognizing.messages(document, request, enricher=enricher):
                send(frames.encode(message))
    except NotOpened as failure:
        send(frames.encode(failure.message))


def find_tables(request: FindTables, send: Send) -> None:
    """Send `DocumentOpened`, the tables and figures of each page, and `TablesFound`.

    Sends `ReadingFailed` alone if the document does not open.
    """
    budget = Budget(time_left=request.time_left, cpu_share=None)
    try:
        with opened(request.opening, budget=budget) as document:
            send(frames.encode(DocumentOpened(page_count=document.page_count)))
            for message in finding.messages(document, request):
                send(frames.encode(message))
    except NotOpened as failure:
        send(frames.encode(failure.message))


class CpuShareUsed(Exception):
    """The CPU share is used up; what is not sent is read again."""


class DocumentTimeUsed(Exception):
    """The time for the document is over; what is not sent is missing."""


class NotOpened(Exception):
    """The document does not open."""

    def __init__(self, message: ReadingFailed) -> None:
        self.message = message
        super().__init__(message.outcome)


class Budget:
    """The CPU time that is left for a document, and for this answer."""

    def __init__(self, *, time_left: timedelta, cpu_share: timedelta | None) -> None:
        started = time.process_time()
        self._ends = started + time_left.total_seconds()
        self._share_ends = None if cpu_share is None else started + cpu_share.total_seconds()

    @contextmanager
    def limit(self, allowed: timedelta) -> Iterator[None]:
        """Interrupt the block after `allowed` CPU time, or when the share is used up.

        Raises:
            TimeLimitReached: `allowed` is over.
            CpuShareUsed: the share is used up.
            DocumentTimeUsed: the time for the document is over.
        """
        reached: type[BaseException] = TimeLimitReached
        left = allowed.total_seconds()
        now = time.process_time()
        if self._ends - now < left:
            reached, left = DocumentTimeUsed, self._ends - now
        if self._share_ends is not None and self._share_ends - now < left:
            reached, left = CpuShareUsed, self._share_ends - now
        if left <= 0:
            raise reached
        try:
            with time_limit(timedelta(seconds=max(left, _SHORTEST_LIMIT))):
                yield
        except TimeLimitReached:
            if reached is TimeLimitReached:
                raise
            raise reached from None


class PageReader:
    """Reads the pages of an open document."""

    def __init__(
        self, document: OpenDocument, request: ReadPages, *, enricher: Enricher, budget: Budget
    ) -> None:
        self._document = document
        self._request = request
        self._limits = request.opening.limits
        self._enriched = enricher.document(request.enricher_state)
        self._budget = budget
        self._text_bytes = request.text_bytes_before

    def read(self) -> Iterator[PageReading | PagesSoFar | DocumentRead]:
        """Yield the pages until the last one or a limit of the document; then the end.

        Raises:
            CpuShareUsed: the pages after the last one are not read.
        """
        last = min(self._document.page_count, self._limits.pages)
        if self._request.last_page is not None:
            last = min(last, self._request.last_page)
        next_so_far = time.monotonic() + SO_FAR_EVERY.total_seconds()
        for number in range(self._request.first_page, last + 1):
            try:
                page = self._page(number)
            except DocumentTimeUsed:
                yield self._end(Outcome.TIMEOUT_DOCUMENT)
                return
            except CpuShareUsed:
                yield self._so_far()
                raise
            self._text_bytes += len(page.text.encode())
            yield page
            if page.outcome is Outcome.LIMIT_TEXT:
                yield self._end(Outcome.LIMIT_TEXT)
                return
            if time.monotonic() >= next_so_far:
                yield self._so_far()
                next_so_far = time.monotonic() + SO_FAR_EVERY.total_seconds()
        if self._request.last_page is not None:
            yield self._so_far()
        yield self._end(Outcome.LIMIT_PAGES if last < self._document.page_count else None)

    def _so_far(self) -> PagesSoFar:
        return PagesSoFar(enricher_state=self._enriched.state())

    def _end(self, cut: Outcome | None) -> DocumentRead:
        summary = self._enriched.summary()
        return DocumentRead(
            cut=cut,
            cut_reason="" if cut is None else self._limits.cut_reason(cut),
            language=summary.language,
            language_confidence=summary.language_confidence,
            key_phrases=summary.key_phrases,
            warnings=self._document.warnings,
        )

    def _page(self, number: int) -> PageReading:
        try:
            extracted = self._extracted(number)
        except (CpuShareUsed, DocumentTimeUsed):
            raise
        except (Exception, TimeLimitReached) as error:  # noqa: BLE001  # a damaged page raises anything
            self._document.forget()
            failed = page_failure_of(error)
            return PageReading(number=number, outcome=failed.outcome, reason=failed.reason)

        content = text.cut(
            extracted.text, size_bytes=max(self._limits.text_bytes - self._text_bytes, 0)
        )
        found, outcome, reason = self._annotated(content, extracted)
        lines, spans = extracted.lines, extracted.spans
        if len(content) < len(extracted.text):
            outcome, reason = Outcome.LIMIT_TEXT, "The text of the document is cut here."
            lines = tuple(line for line in lines if line.end <= len(content))
            spans = tuple(span for span in spans if span.end <= len(content))
        return PageReading(
            number=number,
            outcome=outcome,
            reason=reason,
            text=content,
            lines=lines,
            spans=spans,
            width_points=extracted.width_points,
            height_points=extracted.height_points,
            engine=extracted.engine,
            engine_version=extracted.engine_version,
            engine_reason=extracted.engine_reason
            or ("the default engine ended on it" if self._request.opening.use_other_engine else ""),
            confidence=extracted.confidence,
            sentences=found.sentences,
            entities=found.entities,
            language=found.language,
            language_confidence=found.language_confidence,
        )

    def _extracted(self, number: int) -> ExtractedPage:
        try:
            with self._budget.limit(self._limits.page_timeout):
                return self._document.page(number)
        except MemoryError:
            self._document.forget()
        # Retry after the memory of the earlier pages is freed.
        with self._budget.limit(self._limits.page_timeout):
            return self._document.page(number)

    def _annotated(
        self, content: str, extracted: ExtractedPage
    ) -> tuple[PageAnnotations, Outcome, str]:
        """Return the annotations, and the outcome of the page with them and its reason."""
        limits = PageLimits(
            sentences=self._limits.page_sentences, entities=self._limits.page_entities
        )
        size = len(content)
        ignored = [
            (span.start, min(span.end, size))
            for span in extracted.spans
            if span.kind in RUNNING and span.start < size
        ]
        try:
            with self._budget.limit(self._limits.page_timeout):
                found = self._enriched.page(content, limits=limits, ignored=ignored)
        except (MemoryError, TimeLimitReached) as error:
            is_slow = isinstance(error, TimeLimitReached)
            outcome = Outcome.TIMEOUT_PAGE if is_slow else Outcome.OUT_OF_MEMORY
            reason = "The text is kept, but its sentences and entities are not found."
            return PageAnnotations(), outcome, reason
        if extracted.outcome is Outcome.COMPLETE and (found.more_sentences or found.more_entities):
            reason = "Some sentences or entities of the page are left out."
            return found, Outcome.LIMIT_PAGE_CONTENT, reason
        return found, extracted.outcome, extracted.reason


def failure_of(error: BaseException) -> ReadingFailed:
    """Classify what an extractor raises for a document, or for one page of it."""
    match error:
        case DocumentError():
            return ReadingFailed(outcome=error.outcome, reason=error.reason)
        case MemoryError():
            return ReadingFailed(outcome=Outcome.OUT_OF_MEMORY)
        case TimeLimitReached() | DocumentTimeUsed():
            return ReadingFailed(outcome=Outcome.TIMEOUT_DOCUMENT)
        case RecursionError():
            return ReadingFailed(outcome=Outcome.LIMIT_PAGE_CONTENT)
        case _:
            # On a damaged file a parser may raise any exception.
            return ReadingFailed(outcome=Outcome.CORRUPT)


def page_failure_of(error: BaseException) -> ReadingFailed:
    """Classify what an extractor raises for one page, with a reason."""
    failed = failure_of(error)
    is_slow = isinstance(error, TimeLimitReached)
    outcome = Outcome.TIMEOUT_PAGE if is_slow else failed.outcome
    return ReadingFailed(outcome=outcome, reason=failed.reason or PAGE_REASONS.get(outcome, ""))


@contextmanager
def opened(opening: Opening, *, budget: Budget) -> Iterator[OpenDocument]:
    """Open a document.

    Raises:
        NotOpened: with the reason.
        CpuShareUsed: the document takes longer to open.
    """
    extractor = registry.extractor_for(opening.media_type)
    if opening.use_other_engine:
        extractor = extractor.other() or extractor
    manager = extractor.open(Path(opening.path), limits=opening.limits, password=opening.password)
    try:
        with budget.limit(opening.limits.page_timeout):
            document = manager.__enter__()
    except CpuShareUsed:
        raise
    except (Exception, TimeLimitReached) as error:  # a damaged file raises anything
        raise NotOpened(failure_of(error)) from error
    try:
        yield document
    finally:
        manager.__exit__(None, None, None)
