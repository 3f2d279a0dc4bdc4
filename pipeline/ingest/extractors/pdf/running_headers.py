"""Running headers and footers: lines that neighbouring pages repeat at the same place."""

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from pipeline.ingest.extractors.extractor import ExtractedPage, Line, Span, SpanKind
from pipeline.ingest.sandbox.fork import TimeLimitReached

_NEIGHBOURS: Final = 2  # left and right pages may have headers of their own
_EDGE: Final = 0.15  # of the height of the page
_LINES_MAX: Final = 3  # at each edge; a repeated heading of a table has more
_SAME_PLACE: Final = 6  # in 1/72 inch

_NUMBERS: Final = re.compile(r"\d+|^[ivxlc]+$")
_PAGE_NUMBER: Final = re.compile(r"[^\w#]*#[^\w#]*")
_LETTER: Final = re.compile(r"[^\W\d_]")

Read = Callable[[int], ExtractedPage]
EdgeLine = tuple[SpanKind, str, int]
"""Which edge, the line with its numbers replaced, and its distance from the edge."""


class RunningHeaders:
    """Reads pages and marks their headers and footers, which are seen on two pages at least.

    It reads up to two pages ahead. A page is read once; an error of a page that was read ahead is
    raised when that page is asked for.
    """

    def __init__(self, read: Read, *, page_count: int) -> None:
        self._read = read
        self._page_count = page_count
        self._near: dict[int, _Page | Exception] = {}

    def page(self, number: int) -> ExtractedPage:
        """Return page `number` with the spans of its headers and footers."""
        page = self._near.get(number)
        if isinstance(page, Exception):
            raise page
        if page is None:
            page = self._near[number] = _Page(self._read(number))
        for other in [other for other in self._near if abs(other - number) > _NEIGHBOURS]:
            del self._near[other]
        return _marked(page, self._neighbours(number))

    def forget(self) -> None:
        """Free the memory of the pages that were read."""
        self._near.clear()

    def _neighbours(self, number: int) -> "Iterator[_Page]":
        """Yield the pages around `number`, those first that are already read."""
        distances = range(1, _NEIGHBOURS + 1)
        before = [number - distance for distance in distances]
        after = [
            number + distance for distance in distances if number + distance <= self._page_count
        ]
        for other in before + after:
            page = self._near.get(other)
            if page is None and (other > number or not after):
                page = self._ahead(other)
            if isinstance(page, _Page):
                yield page

    def _ahead(self, number: int) -> "_Page | None":
        if number < 1:
            return None
        try:
            page = self._near[number] = _Page(self._read(number))
        except (MemoryError, TimeLimitReached):
            return None  # alone, that page may succeed
        except Exception as error:  # noqa: BLE001  # a damaged page raises anything
            self._near[number] = error.with_traceback(None)  # which holds the frames' memory
            return None
        return page


class _Page:
    """A page and its outermost lines."""

    def __init__(self, extracted: ExtractedPage) -> None:
        self.extracted = extracted
        self.edge_lines = _edge_lines(extracted)


def _marked(page: _Page, neighbours: Iterator[_Page]) -> ExtractedPage:
    unknown = dict(page.edge_lines)
    found: list[Span] = []
    while unknown:
        neighbour = next(neighbours, None)
        if neighbour is None:
            break
        edges = neighbour.edge_lines.values()
        for line, edge in list(unknown.items()):
            if any(_is_same(edge, other) for other in edges):
                found.append(Span(edge[0], line.start, line.end))
                del unknown[line]
    if not found:
        return page.extracted
    spans = sorted([*page.extracted.spans, *found], key=lambda span: (span.start, span.end))
    return msgspec.structs.replace(page.extracted, spans=tuple(spans))


def _edge_lines(page: ExtractedPage) -> dict[Line, EdgeLine]:
    """Return the outermost lines at each edge that may be headers or footers."""
    lines = sorted(page.lines, key=lambda line: line.top)
    outermost = lines if len(lines) <= 2 * _LINES_MAX else lines[:_LINES_MAX] + lines[-_LINES_MAX:]
    return {line: edge for line in outermost if (edge := _at_edge(page, line)) is not None}


def _at_edge(page: ExtractedPage, line: Line) -> EdgeLine | None:
    """Return a line that stands near the upper or lower edge and may be a header or footer."""
    height = page.height_points
    if height is None:
        return None
    if line.bottom < _EDGE * height:
        kind, distance = SpanKind.HEADER, line.top
    elif line.top > (1 - _EDGE) * height:
        kind, distance = SpanKind.FOOTER, round(height) - line.bottom
    else:
        return None
    words = " ".join(page.text[line.start : line.end].casefold().split())
    words = _NUMBERS.sub("#", words)
    # A row of numbers in a table differs from the next page's in its numbers alone.
    if _LETTER.search(words) is None and _PAGE_NUMBER.fullmatch(words) is None:
        return None
    return kind, words, distance


def _is_same(one: EdgeLine, other: EdgeLine) -> bool:
    return one[:2] == other[:2] and abs(one[2] - other[2]) <= _SAME_PLACE
