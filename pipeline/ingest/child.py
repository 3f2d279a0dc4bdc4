"""The child's side of a reading: opens the PDF, reads page after page, sends each at once."""

import warnings
from collections.abc import Iterator
from pathlib import Path

from spacy.language import Language

from pipeline.ingest import enrich, outcome, text
from pipeline.ingest.extractors import pdf
from pipeline.ingest.extractors.pdf import code_of, reason_of
from pipeline.ingest.outcome import (
    DocumentOpened,
    DocumentRead,
    PageReading,
    ReadingFailed,
    Truncation,
)
from pipeline.ingest.sandbox.fork import Send, TimeLimitReached, time_limit
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.errors import ErrorCode


def read(path: Path, send: Send, *, limits: ReadingLimits, language: Language) -> None:
    """Send `DocumentOpened`, the pages and `DocumentRead`; or, at any point, `ReadingFailed`."""
    warnings.simplefilter("ignore")  # about the document, which gets its own answer
    with path.open("rb") as file:
        try:
            document = pdf.Document(file, limits=limits)
            opened = DocumentOpened(
                page_count=document.page_count,
                metadata=document.metadata(),
                language=language.lang or "xx",  # spaCy's code for no language in particular
                encrypted=document.encrypted,
            )
        except Exception as error:  # noqa: BLE001  # a damaged file raises anything
            failed = ReadingFailed(code=code_of(error), reason=reason_of(error))
            send(outcome.encode(failed))
            return
        send(outcome.encode(opened))
        tally = Tally()
        for page in _pages(document, limits=limits, language=language):
            tally.add(page)
            send(outcome.encode(page))
        result = tally.result(
            pages_left_out=document.page_count > limits.pages,
            parser_warnings=document.parser_warnings,
        )
        send(outcome.encode(result))


class Tally:
    """Adds up pages to what the document as a whole came to."""

    def __init__(self) -> None:
        self._pages = self._characters = self._passages = self._entities = 0
        self._truncated: set[Truncation] = set()
        self._failed = self._unreadable = 0
        self._codes: set[ErrorCode] = set()
        self._first_reason = ""

    def add(self, page: PageReading) -> None:
        self._pages += 1
        self._characters += len(page.text)
        self._passages += len(page.passages)
        self._entities += len(page.entities)
        self._truncated.update(page.truncated)
        if page.error_code is not None:
            self._failed += 1
            self._unreadable += not page.text
            self._codes.add(page.error_code)
            self._first_reason = self._first_reason or f"page {page.number}: {page.error_reason}"

    def result(self, *, pages_left_out: bool, parser_warnings: int) -> DocumentRead | ReadingFailed:
        """Return the summary; or, if not a single page could be read, why."""
        if self._unreadable == self._pages:
            code = self._codes.pop() if len(self._codes) == 1 else ErrorCode.PDF_CORRUPT
            return ReadingFailed(code=code, reason=f"no page can be read; {self._first_reason}")
        truncated = self._truncated | ({Truncation.PAGES} if pages_left_out else set())
        return DocumentRead(
            pages_read=self._pages,
            pages_failed=self._failed,
            characters=self._characters,
            passages=self._passages,
            entities=self._entities,
            truncated=tuple(sorted(truncated)),
            parser_warnings=parser_warnings,
        )


def _pages(
    document: pdf.Document, *, limits: ReadingLimits, language: Language
) -> Iterator[PageReading]:
    """Yield pages until one of the document's limits is reached."""
    room_bytes = limits.text_bytes
    for number in range(1, min(document.page_count, limits.pages) + 1):
        page = _page(document, number, room_bytes=room_bytes, limits=limits, language=language)
        room_bytes -= len(page.text.encode())
        yield page
        if Truncation.TEXT in page.truncated:
            return


def _page(
    document: pdf.Document,
    number: int,
    *,
    room_bytes: int,
    limits: ReadingLimits,
    language: Language,
) -> PageReading:
    try:
        extracted = _extracted(document, number, limits=limits)
    except (Exception, TimeLimitReached) as error:  # noqa: BLE001  # as above, for one page
        document.forget()
        return PageReading(number=number, error_code=code_of(error), error_reason=reason_of(error))

    content = text.cut(extracted.text, size_bytes=room_bytes)
    truncated = set(extracted.truncated)
    if len(content) < len(extracted.text):
        truncated.add(Truncation.TEXT)
    annotations = enrich.NONE
    error_code, error_reason = None, ""
    try:
        with time_limit(limits.page_timeout):
            annotations = enrich.annotate(content, language=language, limits=limits)
    except (MemoryError, TimeLimitReached) as error:
        error_code, error_reason = code_of(error), reason_of(error)
    return PageReading(
        number=number,
        text=content,
        error_code=error_code,
        error_reason=error_reason,
        width_points=extracted.width_points,
        height_points=extracted.height_points,
        passages=annotations.passages,
        entities=annotations.entities,
        truncated=tuple(sorted(truncated | annotations.truncated)),
    )


def _extracted(document: pdf.Document, number: int, *, limits: ReadingLimits) -> pdf.ExtractedPage:
    try:
        with time_limit(limits.page_timeout):
            return document.page(number)
    except MemoryError:
        document.forget()
    # Again, without the pages before it in memory.
    with time_limit(limits.page_timeout):
        return document.page(number)
