"""Columns of prose that a file draws row by row, so that a line of PDFium covers all of them.

A table is drawn like that too, and is read row by row. Columns of prose have a few words in each
row, fill their width, and start at one place.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box, shared_height
from pipeline.ingest.extractors.pdf.lines import PageLine

_COLUMNS_MAX: Final = 4
_ROWS_MIN: Final = 8
_ROWS_SHARE: Final = 0.6  # of the lines between the first and the last row
_GUTTER_MIN: Final = 0.8  # of the height of a line
_WORDS_MIN: Final = 3
_LETTERS_MIN: Final = 0.7  # of the characters
_FILLED: Final = 0.75  # of the width of the column, by half of its lines
_ALIGNED: Final = 4  # in 1/72 inch

Cut = Callable[[PageLine, float], tuple[PageLine | None, PageLine | None]]
"""Divides a line at a place; a side without text is None."""


def read_down(lines: Sequence[PageLine], cut: Cut) -> list[PageLine]:
    """Return the lines with columns one after another; unchanged without such columns."""
    found = list(lines)
    for _ in range(_COLUMNS_MAX - 1):
        rows = _rows(found)
        if rows is None:
            break
        first, last, gutter = rows
        columns = _columns(found[first : last + 1], gutter, cut)
        if columns is None:
            break
        found[first : last + 1] = columns
    return found


def _rows(lines: Sequence[PageLine]) -> tuple[int, int, float] | None:
    """Return the first and last line with a gap at one place, and that place."""
    gaps = [([index], gap) for index, line in enumerate(lines) for gap in _gaps(line)]
    gaps += [
        ([index, index + 1], (line.box.right, other.box.left))
        for index, (line, other) in enumerate(pairwise(lines))
        if line.box is not None and other.box is not None and _is_beside(line, other)
    ]
    if len(gaps) < _ROWS_MIN:
        return None
    edges = sorted([(left, 1) for _, (left, _) in gaps] + [(right, -1) for _, (_, right) in gaps])
    depth = most = 0
    gutter = 0.0
    for (place, change), (following, _) in pairwise(edges):
        depth += change
        if depth > most:
            most, gutter = depth, (place + following) / 2
    rows = {
        index for indexes, (left, right) in gaps if left <= gutter <= right for index in indexes
    }
    first, last = min(rows), max(rows)
    if len(rows) < max(_ROWS_MIN, _ROWS_SHARE * (last - first + 1)):
        return None
    return first, last, gutter


def _gaps(line: PageLine) -> list[tuple[float, float]]:
    if line.box is None or len(line.parts) == 1 or line.is_upright:
        return []
    least = _GUTTER_MIN * (line.box.bottom - line.box.top)
    return [
        (before.right, after.left)
        for before, after in pairwise(line.parts)
        if after.left - before.right > least
    ]


def _is_beside(line: PageLine, other: PageLine) -> bool:
    """Whether the next line is drawn on the right of a line, a little higher or lower."""
    if line.box is None or other.box is None or other.box.left <= line.box.right:
        return False
    return shared_height(line.box, other.box) > 0 and not (line.is_upright or other.is_upright)


def _columns(lines: Sequence[PageLine], gutter: float, cut: Cut) -> list[PageLine] | None:
    """Return the lines left of the gutter, then those right of it; None if this is no prose."""
    columns: list[PageLine] = []
    left: list[PageLine] = []
    right: list[PageLine] = []
    rows: list[tuple[PageLine, PageLine]] = []
    for before, line in zip([None, *lines], lines, strict=False):
        if line.box is None:
            return None
        if line.box.right <= gutter:
            left.append(line)
        elif line.box.left >= gutter:
            if before is not None and left[-1:] == [before] and _is_beside(left[-1], line):
                rows.append((before, line))
            right.append(line)
        elif any(start <= gutter <= end for start, end in _gaps(line)):
            one, other = cut(line, gutter)
            if one is not None and other is not None:
                rows.append((one, other))
            left += [one] if one is not None else []
            right += [other] if other is not None else []
        else:  # a heading across the columns
            columns += left + right + [line]
            left, right = [], []
    ones, others = [one for one, _ in rows], [other for _, other in rows]
    if len(rows) < _ROWS_MIN or not (_is_prose(ones) and _is_prose(others)):
        return None
    return columns + left + right


def _is_prose(lines: Sequence[PageLine]) -> bool:
    boxes = [line.box for line in lines if line.box is not None]
    text = "".join(line.text for line in lines)
    return (
        median(len(line.text.split()) for line in lines) >= _WORDS_MIN
        and sum(map(str.isalpha, text)) >= _LETTERS_MIN * len(text)
        and _is_filled(boxes)
    )


def _is_filled(boxes: Sequence[Box]) -> bool:
    start = median(box.left for box in boxes)
    width = max(box.right for box in boxes) - start
    aligned = sum(abs(box.left - start) < _ALIGNED for box in boxes)
    filled = sum(box.right - start >= _FILLED * width for box in boxes)
    return aligned >= 0.5 * len(boxes) and filled >= 0.5 * len(boxes)
