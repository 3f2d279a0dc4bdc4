"""The clean text of a page that PDFium reads, and where its lines are."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Final

from pipeline.ingest import text
from pipeline.ingest.extractors.extractor import Line
from pipeline.ingest.extractors.pdf import columns, hyphens, lines, order
from pipeline.ingest.extractors.pdf.geometry import Box
from pipeline.ingest.extractors.pdf.lines import PageLine
from pipeline.ingest.extractors.pdf.pdfium import PdfiumPage

# A new block starts where the distance of two lines is that much longer than usual, or one is
# that much higher.
_BLOCK_DISTANCE: Final = 1.35
_NEW_SIZE: Final = 1.4
_PLACE_MAX: Final = 20_000  # in 1/72 inch; pages are at most 14,400
_FAR: Final = 4  # heights of a line; no word goes on there

_ENDS_A_SENTENCE: Final = re.compile(r"[.!?:;\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*$")


@dataclass(frozen=True, kw_only=True)
class PageText:
    """The text of a page; an empty line separates its blocks."""

    text: str
    lines: tuple[Line, ...]


def read(page: PdfiumPage, characters: str) -> PageText:
    """Return the text of `page`.

    Args:
        page: the page.
        characters: what `PdfiumPage.characters` returns, or a part from its start.
    """
    found = columns.read_down(lines.read(page, characters), partial(lines.cut, page, characters))
    found = order.in_reading_order(page, found)
    return _assembled(found, characters=characters)


def plain(raw: str) -> PageText:
    """Return text whose lines have no known place: clean, with divided words joined."""
    rows = text.clean(raw.replace("\u00ad\n", "-\n")).split("\n")
    found = [PageLine(text=row, box=None) for row in map(str.rstrip, rows)]
    return _assembled(found, characters=raw)


def _assembled(found: Sequence[PageLine], *, characters: str) -> PageText:
    """Put the lines into one text, with divided words joined and empty lines between blocks."""
    usual = _usual_distance(found)
    contents = _with_whole_words(found, characters=characters)
    parts: list[str] = []
    placed: list[Line] = []
    end = 0
    before: PageLine | None = None
    for line, content in zip(found, contents, strict=True):
        if not content:
            continue
        if before is not None:
            separator = "\n\n" if _starts_a_block(before, line, usual=usual) else "\n"
            parts.append(separator)
            end += len(separator)
        start, end = end, end + len(content)
        parts.append(content)
        if line.box is not None:
            placed.append(Line(start, end, *_whole(line.box)))
        before = line
    return PageText(text="".join(parts), lines=tuple(placed))


def _whole(box: Box) -> Iterable[int]:
    # A file may place text anywhere.
    if min(box) < -_PLACE_MAX or max(box) > _PLACE_MAX:
        return [round(min(max(place, -_PLACE_MAX), _PLACE_MAX)) for place in box]
    return map(round, box)


def _with_whole_words(found: Sequence[PageLine], *, characters: str) -> list[str]:
    """Return the text of each line with divided words whole; empty if its only word is moved."""
    contents = [line.text for line in found]
    words: str | None = None
    for index, line in enumerate(found[:-1]):
        head, tail = contents[index], contents[index + 1]
        if not head:
            continue
        if line.is_divided:
            if _is_far_below(line, found[index + 1]):
                contents[index] = head + "-"
                continue
        elif hyphens.is_divided(head, tail):
            head = head[:-1]
        else:
            continue
        if words is None:
            words = characters.lower()
        contents[index], contents[index + 1] = hyphens.join(head, tail, page=words)
    if found and found[-1].is_divided:
        contents[-1] += "-"
    return contents


def _is_far_below(before: PageLine, line: PageLine) -> bool:
    if before.box is None or line.box is None:
        return False
    return line.box.top - before.box.bottom > _FAR * before.box.height


def _usual_distance(found: Sequence[PageLine]) -> float | None:
    distances = [
        after.box.bottom - before.box.bottom
        for before, after in pairwise(found)
        if before.box is not None and after.box is not None and after.box.top > before.box.top
    ]
    return median(distances) if distances else None


def _starts_a_block(before: PageLine, line: PageLine, *, usual: float | None) -> bool:
    one, other = before.box, line.box
    if one is None or other is None or usual is None:
        return False
    heights = one.bottom - one.top, other.bottom - other.top
    if 0 <= other.bottom - one.bottom <= _BLOCK_DISTANCE * usual and max(heights) < _NEW_SIZE * min(
        heights
    ):
        return False
    # A sentence goes on below a figure, or in the next column.
    return not line.text[0].islower() or _ENDS_A_SENTENCE.search(before.text) is not None
