"""The child's side: opens the PDF, reads page after page, sends each page at once."""

import warnings
from collections.abc import Iterator
from pathlib import Path

from pipeline.enrich.annotations import PageAnnotations, PageLimits
from pipeline.enrich.enricher import DocumentEnricher, Enricher
from pipeline.ingest import errors, frames, text
from pipeline.ingest.errors import DocumentError
from pipeline.ingest.extractors.pdf import pypdf_text
from pipeline.ingest.extractors.pdf.pypdf_text import Truncation
from pipeline.ingest.frames import (
    DocumentOpened,
    DocumentRead,
    PageReading,
    ReadingFailed,
    ReadPages,
)
from pipeline.ingest.sandbox.fork import Send, TimeLimitReached, time_limit
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome

_TRUNCATIONS = {
    Truncation.TEXT: (Outcome.LIMIT_TEXT, "The text of the document is cut here."),
    Truncation.PAGE_TEXT: (Outcome.LIMIT_PAGE_TEXT, "The text of the page is cut."),
    Truncation.PAGE_FORMS: (Outcome.LIMIT_PAGE_CONTENT, "Some content of the page is left out."),
    Truncation.PAGE_PASSAGES: (Outcome.LIMIT_PAGE_CONTENT, "Some sentences are left out."),
    Truncation.PAGE_ENTITIES: (Outcome.LIMIT_PAGE_CONTENT, "Some entities are left out."),
}
"""The outcome and reason of a page that a limit cut short, the first that applies."""


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
            failed = pypdf_text.error_of(error)
            send(frames.encode(ReadingFailed(outcome=failed.outcome, reason=failed.reason)))
            return
        send(frames.encode(opened))
        enriched = enricher.document()
        cut, cut_reason = None, ""
        for page in _pages(document, limits=limits, enriched=enriched):
            send(frames.encode(page))
            if page.outcome is Outcome.LIMIT_TEXT:
                cut, cut_reason = Outcome.LIMIT_TEXT, "The document has more text than is kept."
        if cut is None and document.page_count > limits.pages:
            cut, cut_reason = Outcome.LIMIT_PAGES, f"Only the first {limits.pages} pages are read."
        summary = enriched.summary()
        send(
            frames.encode(
                DocumentRead(
                    cut=cut,
                    cut_reason=cut_reason,
                    language=summary.language,
                    language_confidence=summary.language_confidence,
                    key_phrases=summary.key_phrases,
                    warnings=document.parser_warnings,
                )
            )
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
        if page.outcome is Outcome.LIMIT_TEXT:
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
        failed = pypdf_text.error_of(error)
        return PageReading(
            number=number,
            outcome=failed.outcome,
            reason=errors.PAGE_REASONS.get(failed.outcome, ""),
        )

    content = text.cut(extracted.text, size_bytes=room_bytes)
    found = PageAnnotations()
    incomplete: DocumentError | None = None
    try:
        with time_limit(limits.page_timeout):
            found = enriched.page(
                content,
                limits=PageLimits(sentences=limits.page_passages, entities=limits.page_entities),
            )
    except (MemoryError, TimeLimitReached) as error:
        incomplete = pypdf_text.error_of(error)
    outcome, reason = _outcome_of(
        content,
        incomplete=incomplete,
        truncated=extracted.truncated
        | ({Truncation.TEXT} if len(content) < len(extracted.text) else set())
        | ({Truncation.PAGE_PASSAGES} if found.more_sentences else set())
        | ({Truncation.PAGE_ENTITIES} if found.more_entities else set()),
    )
    return PageReading(
        number=number,
        outcome=outcome,
        reason=reason,
        text=content,
        width_points=extracted.width_points,
        height_points=extracted.height_points,
        engine="pypdf",
        language=found.language,
        language_confidence=found.language_confidence,
        sentences=found.sentences,
        entities=found.entities,
    )


def _outcome_of(
    content: str, *, incomplete: DocumentError | None, truncated: frozenset[Truncation]
) -> tuple[Outcome, str]:
    for limit, meaning in _TRUNCATIONS.items():
        if limit in truncated:
            return meaning
    if incomplete is not None:
        return incomplete.outcome, "Sentences and entities of the page are missing."
    return (Outcome.COMPLETE if content.strip() else Outcome.NO_TEXT), ""


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
