"""Recognises the pages of one document, and decides what of the result is text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import process_time
from typing import Final

import msgspec

from pipeline.ingest import text
from pipeline.ingest.extractors.extractor import ExtractedPage, Line, PageImage
from pipeline.ingest.ocr import languages as language_data
from pipeline.ingest.ocr.engine import OcrEngine, RecognitionTimedOut, RecognizedLine
from pipeline.ingest.ocr.scan import POINTS_PER_INCH, Scan
from schemas.outcomes import Outcome

# An upright page in the right language has 0.85 and more, even a poor scan; one that is turned, or
# in another script, 0.2 to 0.4.
_DOUBTFUL: Final = 0.75
# Pictures and stamps on a page of text yield lines of noise.
_LINE_CONFIDENCE_MIN: Final = 0.35
# Fewer letters do not show their language.
_LETTERS_FOR_LANGUAGE: Final = 100

IdentifyLanguage = Callable[[str], str | None]
"""Returns the ISO 639-1 code of a text, or None if it is not clear."""


@dataclass(frozen=True, kw_only=True)
class RecognitionLimits:
    """Limits of recognition.

    Attributes:
        page_timeout: CPU time for all attempts at one page.
        confidence_min: mean confidence of a page, 0 to 1, below which its text is discarded.
        page_characters: text of one page; the rest is left out.
    """

    page_timeout: timedelta
    confidence_min: float
    page_characters: int


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """What the engine made of a page in one way of looking at it."""

    scan: Scan
    turn: int
    languages: tuple[str, ...]
    lines: tuple[RecognizedLine, ...]

    @property
    def characters(self) -> int:
        return sum(len(line.text) for line in self.lines)

    @property
    def confidence(self) -> float:
        """Mean confidence of the characters."""
        weighted = sum(len(line.text) * line.confidence for line in self.lines)
        return weighted / self.characters if self.lines else 0.0

    @property
    def merit(self) -> float:
        """Compares attempts: a few certain lines are worth less than a page, noise almost nothing."""
        return sum(len(line.text) * line.confidence**2 for line in self.lines)


class DocumentRecognizer:
    """Recognises pages of one document, one after another.

    The way in which a page was read well is tried first for the next page: the pages of a scan
    are mostly turned alike and in one language.
    """

    def __init__(
        self,
        engine: OcrEngine,
        *,
        languages: tuple[str, ...],
        limits: RecognitionLimits,
        identify_language: IdentifyLanguage = lambda _: None,
        is_language_known: bool = False,
        clock: Callable[[], float] = process_time,
    ) -> None:
        """Start a document.

        Args:
            engine: recognises a picture.
            languages: language data for the first page; at least one.
            limits: bounds the work and the text of a page.
            identify_language: finds better language data from the text of a page.
            is_language_known: whether `languages` are those of the document.
            clock: measures the CPU time of a page.
        """
        self._engine = engine
        self._languages = languages
        self._limits = limits
        self._identify_language = identify_language
        self._is_language_known = is_language_known
        self._clock = clock
        self._turn = 0
        self._deadline = 0.0

    def page(self, number: int, image: PageImage) -> ExtractedPage:
        """Return the page: `COMPLETE`, `NO_TEXT`, or without text `NEEDS_OCR` or `TIMEOUT_PAGE`."""
        self._deadline = self._clock() + self._limits.page_timeout.total_seconds()
        scan = Scan.of(image)
        page = ExtractedPage(
            number=number,
            width_points=image.width * POINTS_PER_INCH / image.dpi,
            height_points=image.height * POINTS_PER_INCH / image.dpi,
            engine=self._engine.name,
            engine_version=self._engine.version,
            engine_reason="the page is a picture",
        )
        try:
            found = self._best(scan)
        except RecognitionTimedOut:
            return msgspec.structs.replace(
                page,
                outcome=Outcome.TIMEOUT_PAGE,
                reason="Recognising the text of the page took longer than allowed.",
            )
        return self._judged(page, found)

    def _best(self, scan: Scan) -> _Attempt:
        """Return the best attempt.

        Raises:
            RecognitionTimedOut: not even the first attempt ended in time.
        """
        best = self._attempt(scan, turn=self._turn, languages=self._languages)
        try:
            if best.confidence < _DOUBTFUL:
                for turn, names in self._other_ways(scan, tried=best):
                    attempt = self._attempt(scan, turn=turn, languages=names)
                    best = max(best, attempt, key=lambda each: each.merit)
                    if best.confidence >= _DOUBTFUL:
                        break
            if best.confidence >= _DOUBTFUL:
                best = self._in_its_language(scan, best)
        except RecognitionTimedOut:
            return best
        if best.confidence >= _DOUBTFUL:
            self._turn, self._languages = best.turn, best.languages
        return best

    def _attempt(self, scan: Scan, *, turn: int, languages: tuple[str, ...]) -> _Attempt:
        straight = scan.turned(turn).straightened()
        allowed = self._deadline - self._clock()
        if allowed <= 0:
            raise RecognitionTimedOut
        lines = self._engine.recognize(
            straight.picture,
            dpi=straight.dpi,
            languages=languages,
            allowed=timedelta(seconds=allowed),
        )
        return _Attempt(
            scan=straight,
            turn=turn,
            languages=languages,
            lines=tuple(line for line in lines if any(map(str.isalnum, line.text))),
        )

    def _other_ways(self, scan: Scan, *, tried: _Attempt) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield turns and language data that may suit the page better, the likely ones first."""
        turned = scan.turned(tried.turn)
        orientation = self._engine.orientation(turned.picture, dpi=turned.dpi)
        if orientation is not None:
            turn = (tried.turn + orientation.turn) % 360
            names = language_data.of_script(orientation.script, installed=self._engine.languages)
            names = names or tried.languages
            if (turn, names) != (tried.turn, tried.languages):
                yield turn, names
        elif tried.lines:
            # Too little text to measure is also little to recognise.
            for turn in (180, 90, 270):
                yield (tried.turn + turn) % 360, tried.languages

    def _in_its_language(self, scan: Scan, found: _Attempt) -> _Attempt:
        """Return the page recognised with the data of its language, where that is better."""
        content = "\n".join(line.text for line in found.lines)
        if self._is_language_known or sum(map(str.isalpha, content)) < _LETTERS_FOR_LANGUAGE:
            return found
        self._is_language_known = True
        names = language_data.of_document(
            self._identify_language(content), installed=self._engine.languages
        )
        if not names or set(names) <= set(found.languages):
            return found
        attempt = self._attempt(scan, turn=found.turn, languages=names)
        return max(found, attempt, key=lambda each: each.merit)

    def _judged(self, page: ExtractedPage, found: _Attempt) -> ExtractedPage:
        """Return the page with the text of an attempt, if it is text."""
        if not found.lines:
            return msgspec.structs.replace(page, outcome=Outcome.NO_TEXT)
        page = msgspec.structs.replace(page, confidence=round(found.confidence, 3))
        certain = [line for line in found.lines if line.confidence >= _LINE_CONFIDENCE_MIN]
        if not certain or found.confidence < self._limits.confidence_min:
            return msgspec.structs.replace(
                page,
                outcome=Outcome.NEEDS_OCR,
                reason="The text of the page could not be recognised with enough certainty;"
                " a better scan may help.",
            )
        content, lines = composed(certain, scan=found.scan)
        if len(content) <= self._limits.page_characters:
            return msgspec.structs.replace(page, text=content, lines=lines)
        end = self._limits.page_characters
        return msgspec.structs.replace(
            page,
            outcome=Outcome.LIMIT_PAGE_TEXT,
            reason="The page has more text than a page may have; the rest is left out.",
            text=content[:end],
            lines=tuple(line for line in lines if line.end <= end),
        )


def composed(recognized: Sequence[RecognizedLine], *, scan: Scan) -> tuple[str, tuple[Line, ...]]:
    """Return the text of lines, a blank line between paragraphs, and the places of the lines."""
    parts: list[str] = []
    lines: list[Line] = []
    start = 0
    for line in recognized:
        content = text.clean(line.text)
        lines.append(Line(start, start + len(content), *scan.box_on_page(line.box)))
        parts.append(content + ("\n\n" if line.ends_paragraph else "\n"))
        start += len(parts[-1])
    return "".join(parts).rstrip(), tuple(lines)
