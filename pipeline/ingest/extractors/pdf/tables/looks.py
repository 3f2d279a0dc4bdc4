"""A cheap look at a page: whether its words may stand in columns."""

import re
from collections.abc import Iterator
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box
from pipeline.ingest.extractors.pdf.pdfium import PdfiumPage

_GAPS_MIN: Final = 3
"""Lines with a wide gap that a table has at least."""

_SPACES_MIN: Final = 2
"""Wide gaps in every second line that a table has at least."""

# Fractions of the height of the ink of a line.
_WIDE: Final = 1.0
_MARK: Final = 1.6
"""A narrower text before a gap is a bullet or a number of a list."""

_SAME_LINE: Final = 0.5
_GAP: Final = re.compile(r"\S[ \t]+(?=\S)")
_CHARACTERS_MAX: Final = 20_000


def may_have_columns(page: PdfiumPage) -> bool:
    """Return whether several lines of a page have wide gaps.

    Takes a tenth of the time in which the words are read. Each cell of a table is mostly a text
    object of its own, for which PDFium has a box; else the gaps are at the spaces of a line.
    """
    parts = page.boxes(0, page.character_count)
    parts.sort(key=lambda box: box.top + box.bottom)
    gaps = 0
    for line in _lines(parts):
        gaps += _has_gap(line)
        if gaps >= _GAPS_MIN:
            return True
    return _has_wide_spaces(page)


def _lines(parts: list[Box]) -> Iterator[list[Box]]:
    line: list[Box] = []
    middle = 0.0
    for part in parts:
        if line and (part.top + part.bottom) / 2 - middle > _SAME_LINE * line[0].height:
            yield line
            line = []
        if not line:
            middle = (part.top + part.bottom) / 2
        line.append(part)
    if line:
        yield line


def _has_gap(line: list[Box]) -> bool:
    if len(line) == 1:
        return False
    line.sort()
    first, right = line[0].left, line[0].right
    for part in line[1:]:
        height = max(part.height, 1.0)
        if part.left - right > _WIDE * height and right - first > _MARK * height:
            return True
        right = max(right, part.right)
    return False


def _has_wide_spaces(page: PdfiumPage) -> bool:
    """Return whether several lines have wide gaps at their spaces; looks at every second line."""
    indexes: list[int] = []
    start = 0
    for number, line in enumerate(page.characters(longest=_CHARACTERS_MAX).split("\r\n")):
        if number % 2 == 0:
            for space in _GAP.finditer(line):
                indexes += start + space.start(), start + space.end()
        start += len(line) + 2
    boxes = page.boxes_at(indexes)
    gaps = 0
    for before, after in zip(boxes[::2], boxes[1::2], strict=True):
        if after.left - before.right > _WIDE * (before.bottom - before.top):
            gaps += 1
            if gaps >= _SPACES_MIN:
                return True
    return False
