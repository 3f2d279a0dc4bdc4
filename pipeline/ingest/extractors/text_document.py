"""A document that is a text without pages of its own, divided into pages."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from pipeline.ingest import text as cleaning
from pipeline.ingest.extractors.extractor import (
    ExtractedPage,
    OpenDocument,
    OutlineItem,
    Span,
    Structure,
)
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome

PAGE_BREAK: Final = "\f"

# A printed page has 3,000 characters.
PAGE_CHARACTERS: Final = 4_000
# A page that ends with a page break stays whole up to this length: its number is known to readers.
_BROKEN_PAGE_CHARACTERS: Final = 20_000

# Where a page may end, best first: paragraph, line, sentence, word or item of a list.
_ENDS: Final = tuple(
    re.compile(each) for each in (r"\n\s*\n", r"\n", r"[.!?] |[\u3002\uff01\uff1f]", r"[ ,;\u3001]")
)


class TextDocument(OpenDocument):
    """An open text.

    Args:
        text: clean, with `PAGE_BREAK` between pages that the file itself has.
        limits: of the reading.
        engine: what read the file, and its version.
        structure: metadata; headings get their pages here.
        spans: marked parts of the text, in order.
        headings: offset of each heading, in order, its level from 0 and its title.
        cut_by: the limit that left out the rest of the text, with a sentence for clients.
        warnings: defects that were repaired or skipped.
    """

    def __init__(
        self,
        text: str,
        *,
        limits: ReadingLimits,
        engine: tuple[str, str],
        structure: Structure,
        spans: tuple[Span, ...] = (),
        headings: tuple[tuple[int, int, str], ...] = (),
        cut_by: tuple[Outcome, str] | None = None,
        warnings: int = 0,
    ) -> None:
        self._text = text
        self._engine = engine
        self._structure = structure
        self._spans = spans
        self._headings = headings
        self._cut_by = cut_by
        self._outline_max = limits.outline_entries
        self.warnings = warnings
        self._pages: list[tuple[int, int]] = []
        self.page_count = 0
        for page in page_ranges(text, longest=min(PAGE_CHARACTERS, limits.page_characters)):
            self.page_count += 1
            if self.page_count <= limits.pages:
                self._pages.append(page)

    def page(self, number: int) -> ExtractedPage:
        start, end = self._pages[number - 1]
        content = self._text[start:end]
        outcome, reason = Outcome.COMPLETE if content.strip() else Outcome.NO_TEXT, ""
        if self._cut_by is not None and number == self.page_count:
            outcome, reason = self._cut_by
        engine, version = self._engine
        return ExtractedPage(
            number=number,
            outcome=outcome,
            reason=reason,
            text=content,
            spans=tuple(
                Span(span.kind, max(span.start, start) - start, min(span.end, end) - start)
                for span in self._spans
                if span.start < end and span.end > start
            ),
            engine=engine,
            engine_version=version,
        )

    def structure(self) -> Structure:
        outline = tuple(
            OutlineItem(title=title, level=level, page=self._page_at(offset))
            for offset, level, title in self._headings[: self._outline_max]
        )
        found = self._structure
        return Structure(
            metadata=found.metadata,
            outline=outline,
            attachments=found.attachments,
            page_labels=found.page_labels,
            is_cut=found.is_cut or len(self._headings) > self._outline_max,
        )

    def _page_at(self, offset: int) -> int | None:
        """Return the number of the page at an offset; None beyond the pages that are read."""
        low, high = 0, len(self._pages)
        while low < high:
            middle = (low + high) // 2
            if self._pages[middle][1] <= offset:
                low = middle + 1
            else:
                high = middle
        return low + 1 if low < len(self._pages) else None


def clean(raw: str) -> str:
    """Return a text cleaned for a `TextDocument`; its form feeds stay, as page breaks."""
    if raw.isascii() and raw.isprintable():
        return raw  # most lines, and cleaning takes longer than all other work on them
    return PAGE_BREAK.join(cleaning.clean(page) for page in raw.split(PAGE_BREAK))


def page_ranges(text: str, *, longest: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each page, without empty lines at its edges.

    Args:
        text: the whole text; it has at least one page, which may be empty.
        longest: characters of a page.
    """
    last = text.rstrip()
    end = len(last)
    has_breaks = PAGE_BREAK in last
    whole = max(longest, _BROKEN_PAGE_CHARACTERS) if has_breaks else longest
    start = 0
    while True:
        stop = text.find(PAGE_BREAK, start, end) if has_breaks else -1
        stop = end if stop < 0 else stop
        if stop - start <= whole:
            yield _without_blank_edges(text, start, stop)
        else:
            yield from _pieces(text, start, stop, longest=longest)
        if stop >= end:
            return
        start = stop + 1


def _pieces(text: str, start: int, stop: int, *, longest: int) -> Iterator[tuple[int, int]]:
    while stop - start > longest:
        end = _end_of_piece(text, start, longest=longest)
        piece = _without_blank_edges(text, start, end)
        if piece[0] < piece[1]:
            yield piece
        start = end
    yield _without_blank_edges(text, start, stop)


def _end_of_piece(text: str, start: int, *, longest: int) -> int:
    """Return where a piece ends, in the second half of the characters that it may have."""
    half = start + longest // 2
    stop = start + longest
    for pattern in _ENDS:
        end = None
        for found in pattern.finditer(text, half, stop):
            end = found.end()
        if end is not None:
            return end
    while stop > half and unicodedata.combining(text[stop]):
        stop -= 1
    return stop


def _without_blank_edges(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the range without empty lines at its start and white space at its end."""
    content = text[start:end]
    end = start + len(content.rstrip())
    leading = len(content) - len(content.lstrip())
    first_line = text.rfind("\n", start, min(start + leading, end)) + 1
    return max(start, first_line), max(start, end)
