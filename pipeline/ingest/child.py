"""The child's side: opens the PDF, reads page after page, sends each page at once."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.enrich.annotations import DocumentSummary, PageAnnotations, PageLimits
from pipeline.enrich.enricher import DocumentEnricher, Enricher
from pipeline.ingest import frames, text
from pipeline.ingest.errors import PdfCorrupt, PdfError
from pipeline.ingest.extractors.pdf import pypdf_text
from pipeline.ingest.frames import (
    DocumentOpened,
    DocumentRead,
    PageReading,
    Passage,
    ReadingFailed,
    ReadPages,
    Truncation,
)
from pipeline.ingest.sandbox.fork import Send, TimeLimitReached, time_limit
from pipeline.ingest.sandbox.limits import ReadingLimits

if TYPE_CHECKING:
    from schemas.errors import ErrorCode


def serve(request: bytes, send: Send, *, enricher: Enricher) -> None:
    """Answer a request of the worker."""
    match frames.decode_request(request):
        case ReadPages() as pages:
            read(pages, send, enricher=enricher)
        case other:
            raise NotImplementedError(type(other).__name__)


def read(request: ReadPages, send: Send, *, enricher: Enricher) -> None:
    """Send `DocumentOpened`, the pages and `DocumentRead`; or, at any point, `ReadingFailed`."""
    warnings.simplefilter("ignore")  # the frames report defects of the document
    limits = request.limits
    with Path(request.path).open("rb") as file:
        try:
            document = pypdf_text.Document(file, limits=limits)
            opened = DocumentOpened(
                page_count=document.page_count,
                metadata=document.metadata(),
            )
        except Exception as error:  # noqa: BLE001  # a damaged file raises anything
            failed = pypdf_text.error_of(error, limits=limits)
            send(frames.encode(ReadingFailed(code=failed.code, reason=failed.reason)))
            return
        send(frames.encode(opened))
        tally = Tally()
        enriched = enricher.document()
        for page in _pages(document, limits=limits, enriched=enriched):
            tally.add(page)
            send(frames.encode(page))
        result = tally.result(
            pages_left_out=document.page_count > limits.pages,
            parser_warnings=document.parser_warnings,
            enriched=enriched.summary(),
        )
        send(frames.encode(result))


class Tally:
    """Counts the pages for the summary of the document."""

    def __init__(self) -> None:
        self._pages = self._passages = self._entities = 0
        self._truncated: set[Truncation] = set()
        self._failed = self._unreadable = 0
        self._codes: set[ErrorCode] = set()
        self._first_reason = ""

    def add(self, page: PageReading) -> None:
        self._pages += 1
        self._passages += len(page.passages)
        self._entities += len(page.entities)
        self._truncated.update(page.truncated)
        if page.error_code is not None:
            self._failed += 1
            self._unreadable += not page.text
            self._codes.add(page.error_code)
            self._first_reason = self._first_reason or f"page {page.number}: {page.error_reason}"

    def result(
        self, *, pages_left_out: bool, parser_warnings: int, enriched: DocumentSummary
    ) -> DocumentRead | ReadingFailed:
        """Return the summary, or the failure if no page could be read."""
        if self._unreadable == self._pages:
            code = self._codes.pop() if len(self._codes) == 1 else PdfCorrupt.code
            return ReadingFailed(code=code, reason=f"no page can be read; {self._first_reason}")
        truncated = self._truncated | ({Truncation.PAGES} if pages_left_out else set())
        return DocumentRead(
            pages_read=self._pages,
            pages_failed=self._failed,
            passages=self._passages,
            entities=self._entities,
            truncated=tuple(sorted(truncated)),
            parser_warnings=parser_warnings,
            language=enriched.language,
            language_confidence=enriched.language_confidence,
            key_phrases=enriched.key_phrases,
        )


def _pages(
    document: pypdf_text.Document, *, limits: ReadingLimits, enriched: DocumentEnricher
) -> Iterator[PageReading]:
    """Yield pages until one of the document's limits is reached."""
    room_bytes = limits.text_bytes
    for number in range(1, min(document.page_count, limits.pages) + 1):
        page = _page(document, number, room_bytes=room_bytes, limits=limits, enriched=enriched)
        room_bytes -= len(page.text.encode())
        yield page
        if Truncation.TEXT in page.truncated:
            return


def _page(
    document: pypdf_text.Document,
    number: int,
    *,
    room_bytes: int,
    limits: ReadingLimits,
    enriched: DocumentEnricher,
) -> PageReading:
    try:
        extracted = _extracted(document, number, limits=limits)
    except (Exception, TimeLimitReached) as error:  # noqa: BLE001  # a damaged page raises anything
        document.forget()
        failed = pypdf_text.error_of(error, limits=limits)
        return PageReading(number=number, error_code=failed.code, error_reason=failed.reason)

    content = text.cut(extracted.text, size_bytes=room_bytes)
    found = PageAnnotations()
    incomplete: PdfError | None = None
    try:
        with time_limit(limits.page_timeout):
            found = enriched.page(
                content,
                limits=PageLimits(sentences=limits.page_passages, entities=limits.page_entities),
            )
    except (MemoryError, TimeLimitReached) as error:
        incomplete = pypdf_text.error_of(error, limits=limits)
    truncated = {
        Truncation.TEXT: len(content) < len(extracted.text),
        Truncation.PAGE_PASSAGES: found.more_sentences,
        Truncation.PAGE_ENTITIES: found.more_entities,
    }
    return PageReading(
        number=number,
        text=content,
        error_code=incomplete.code if incomplete else None,
        error_reason=incomplete.reason if incomplete else "",
        width_points=extracted.width_points,
        height_points=extracted.height_points,
        language=found.language,
        language_confidence=found.language_confidence,
        passages=tuple(
            Passage(ordinal, start, end) for ordinal, (start, end) in enumerate(found.sentences)
        ),
        entities=found.entities,
        truncated=tuple(
            sorted(extracted.truncated | {limit for limit, reached in truncated.items() if reached})
        ),
    )


def _extracted(
    document: pypdf_text.Document, number: int, *, limits: ReadingLimits
) -> pypdf_text.ExtractedPage:
    try:
        with time_limit(limits.page_timeout):
            return document.page(number)
    except MemoryError:
        document.forget()
    # Retry after the memory of the earlier pages is freed.
    with time_limit(limits.page_timeout):
        return document.page(number)
