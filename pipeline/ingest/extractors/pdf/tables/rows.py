"""Rows that the lines of text between two rules show."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pipeline.ingest.extractors.pdf.tables.headers import is_number

_NUMBERS_SHARE: Final = 0.7
_VALUES_MIN: Final = 2
_NEARER: Final = 0.6
_GOES_ON: Final = re.compile(r"[a-zà-ÿ(&]")  # letters of Western languages
_CENTERED: Final = 0.08
_COLUMNS_MAX: Final = 60
"""A line with more columns has no headings over several of them."""

_TIGHT: Final = 0.8
"""Lines of one cell are nearer than this fraction of their height."""


@dataclass(frozen=True, kw_only=True)
class TextLine:
    """A line of text in a table.

    Attributes:
        top: its upper edge.
        bottom: its lower edge.
        texts: the text that begins in each column.
        edges: the left and right edge of each of them.
        is_spanning: whether a text goes over several columns.
    """

    top: float
    bottom: float
    texts: Mapping[int, str]
    edges: Mapping[int, tuple[float, float]]
    is_spanning: bool = False


def row_starts(lines: Sequence[TextLine], *, is_ruled: bool) -> list[int]:
    """Return the indexes of the lines that begin a row; the first line always does.

    Args:
        lines: from top to bottom, between two rules.
        is_ruled: whether rules divide the columns; then the lines are one row unless numbers
            show that they are not: a number is never continued in the next line.
    """
    columns = _number_columns(lines)
    values = [
        index
        for index, line in enumerate(lines)
        if any(column in columns and is_number(text) for column, text in line.texts.items())
    ]
    if len(values) >= _VALUES_MIN or (values and not is_ruled):
        return _around_values(lines, values)
    return [0] if is_ruled or not lines else _by_fullness(lines)


def _number_columns(lines: Sequence[TextLine]) -> set[int]:
    counts: dict[int, list[int]] = {}
    for line in lines:
        for column, text in line.texts.items():
            count = counts.setdefault(column, [0, 0])
            count[0] += 1
            count[1] += is_number(text)
    return {
        column
        for column, (count, numbers) in counts.items()
        if numbers >= _VALUES_MIN and numbers >= _NUMBERS_SHARE * count
    }


def _around_values(lines: Sequence[TextLine], values: Sequence[int]) -> list[int]:
    """Return the starts where each line with a number is a row, perhaps with lines around it."""
    starts = set(_header_starts(lines[: values[0]]))
    starts.add(0)
    owner = dict(zip(values, values, strict=True))  # the line of numbers that a line belongs to
    for before, after in pairwise([*values, len(lines)]):
        for index in range(before + 1, after):
            owner[index] = _owner(lines, index, before=owner[index - 1], after=after)
    if values[0] > 0 and _belongs_to_next(lines, values[0] - 1):
        owner[values[0] - 1] = values[0]
    last = None
    for index in sorted(owner):
        if owner[index] != last:
            starts.add(index)
        last = owner[index]
    if values[0] > 0 and owner.get(values[0] - 1) == values[0]:
        starts.discard(values[0])
    return sorted(starts)


def _belongs_to_next(lines: Sequence[TextLine], index: int) -> bool:
    """Return whether a line above the first numbers is the beginning of their label."""
    line, following = lines[index], lines[index + 1]
    return set(line.texts) == {0} and index > 0 and bool(_GOES_ON.match(following.texts.get(0, "")))


def _owner(lines: Sequence[TextLine], index: int, *, before: int, after: int) -> int:
    """Return the line of numbers that a line without numbers belongs to, or itself."""
    line = lines[index]
    if len(line.texts) > 1:
        return index
    if any(_GOES_ON.match(text) for text in line.texts.values()):
        return before
    if index + 1 == after < len(lines):
        return _owner_by_gap(lines, index, before=before)
    return index


def _owner_by_gap(lines: Sequence[TextLine], index: int, *, before: int) -> int:
    """Return the owner of the last line above a line of numbers."""
    line, following = lines[index], lines[index + 1]
    (column,) = line.texts
    above = line.top - lines[index - 1].bottom
    below = following.top - line.bottom
    label = following.texts.get(column)
    if label is not None and _GOES_ON.match(label):
        return index + 1
    if below < _NEARER * above or (label is None and below <= above):
        return index + 1
    return before if above < _NEARER * below else index


def _header_starts(lines: Sequence[TextLine]) -> list[int]:
    """Return the starts of the rows above the first numbers.

    Lines of one heading are close together; a heading over several columns is a row.
    """
    starts = []
    for index, line in enumerate(lines):
        if index == 0:
            starts.append(0)
            continue
        before = lines[index - 1]
        gap = line.top - before.bottom
        is_apart = gap > _TIGHT * (line.bottom - line.top)
        if is_apart or line.is_spanning or before.is_spanning or _heads_columns(before, line):
            starts.append(index)
    return starts


def _heads_columns(upper: TextLine, lower: TextLine) -> bool:
    """Return whether each text of a line is centered over several columns of the next one.

    Together they are over all of its columns but the first ones; else the lines are those of
    headings with several lines.
    """
    if not 0 < 2 * len(upper.edges) <= len(lower.edges) <= _COLUMNS_MAX:
        return False
    nearest: dict[int, list[int]] = {own: [] for own in upper.edges}
    for column, edges in sorted(lower.edges.items()):
        apart = {own: abs(sum(heading) - sum(edges)) for own, heading in upper.edges.items()}
        nearest[min(apart, key=lambda own: apart[own])].append(column)
    covered: set[int] = set()
    for own, columns in nearest.items():
        ranges: list[list[int]] = [
            columns[begin:end]
            for begin in range(len(columns))
            for end in range(begin + 2, len(columns) + 1)
            if _is_centered(upper.edges[own], lower, columns[begin], columns[end - 1])
        ]
        if not ranges:
            return False
        widest = max(ranges, key=len)
        covered.update(widest)
    return all(column in covered for column in lower.edges if column >= min(covered))


def _is_centered(edges: tuple[float, float], lower: TextLine, first: int, last: int) -> bool:
    left, right = lower.edges[first][0], lower.edges[last][1]
    return abs(sum(edges) - left - right) / 2 <= _CENTERED * (right - left)


def _by_fullness(lines: Sequence[TextLine]) -> list[int]:
    """Return the starts where a row has text in its first column, and in another one."""
    starts = [0]
    for index, line in enumerate(lines[1:], start=1):
        if (0 in line.texts and (len(line.texts) > 1 or line.is_spanning)) or line.top - lines[
            index - 1
        ].bottom > _TIGHT * (line.bottom - line.top):
            starts.append(index)
    return starts
