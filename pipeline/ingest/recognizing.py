"""Recognises the pages of an open document; the child's side."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.enrich.annotations import PageLimits
from pipeline.enrich.enricher import DocumentEnricher, Enricher
from pipeline.ingest.errors import PAGE_REASONS
from pipeline.ingest.extractors.extractor import ExtractedPage, OpenDocument
from pipeline.ingest.frames import DocumentRead, PageReading, Recognize
from pipeline.ingest.ocr import engines
from pipeline.ingest.ocr.engine import OcrEngine
from pipeline.ingest.ocr.recognition import DocumentRecognizer, RecognitionLimits
from pipeline.ingest.sandbox.fork import TimeLimitReached, time_limit
from schemas.outcomes import Outcome
from schemas.settings import OcrEngineName

PAGE_CHARACTERS = 200_000
"""Text of one page; twenty times a dense printed page."""

_engines: dict[OcrEngineName, OcrEngine] = {}
"""The engine of this child, kept for the next document of the tenant."""


def messages(
    document: OpenDocument, request: Recognize, *, enricher: Enricher
) -> Iterator[PageReading | DocumentRead]:
    """Yield each page once it is recognised, then the language and key phrases of these pages."""
    detector = enricher.detector

    def identify(content: str) -> str | None:
        detected = detector.detect(content) if detector else None
        return detected.code if detected else None

    recognizer = DocumentRecognizer(
        _engine(request),
        languages=request.languages,
        limits=RecognitionLimits(
            page_timeout=request.page_timeout,
            confidence_min=request.confidence_min,
            page_characters=PAGE_CHARACTERS,
        ),
        identify_language=identify,
        is_language_known=request.is_language_known,
    )
    enriched = enricher.document()
    for number in request.pages:
        yield _page(document, number, request, recognizer=recognizer, enriched=enriched)
    summary = enriched.summary()
    yield DocumentRead(
        language=summary.language,
        language_confidence=summary.language_confidence,
        key_phrases=summary.key_phrases,
    )


def _engine(request: Recognize) -> OcrEngine:
    if request.engine not in _engines:
        _engines[request.engine] = engines.opened(request.engine, data=Path(request.data))
    return _engines[request.engine]


def _page(
    document: OpenDocument,
    number: int,
    request: Recognize,
    *,
    recognizer: DocumentRecognizer,
    enriched: DocumentEnricher,
) -> PageReading:
    limits = request.opening.limits
    try:
        # Twice as long as the recognition: see `OcrEngine.recognize`.
        with time_limit(2 * request.page_timeout):
            page = _recognized(document, number, request, recognizer=recognizer)
            found = enriched.page(
                page.text,
                limits=PageLimits(sentences=limits.page_sentences, entities=limits.page_entities),
            )
    except (Exception, TimeLimitReached) as error:  # noqa: BLE001  # a damaged page raises anything
        document.forget()
        outcome = _outcome_of(error)
        return PageReading(number=number, outcome=outcome, reason=PAGE_REASONS[outcome])
    return PageReading(
        sentences=found.sentences,
        entities=found.entities,
        language=found.language,
        language_confidence=found.language_confidence,
        **msgspec.structs.asdict(page),
    )


def _recognized(
    document: OpenDocument, number: int, request: Recognize, *, recognizer: DocumentRecognizer
) -> ExtractedPage:
    image = document.image(number, dpi=request.dpi, pixels_max=request.pixels_max, grey=True)
    if image is None:
        return ExtractedPage(
            number=number,
            outcome=Outcome.NEEDS_OCR,
            reason="The page has no picture whose text could be recognised.",
        )
    return recognizer.page(number, image)


def _outcome_of(error: BaseException) -> Outcome:
    match error:
        case TimeLimitReached():
            return Outcome.TIMEOUT_PAGE
        case MemoryError():
            return Outcome.OUT_OF_MEMORY
        case _:
            return Outcome.CORRUPT
