"""Columns of prose on a page: a table stands in one of them, or goes over all."""

from collections.abc import Sequence
from typing import Final

from pipeline.ingest.extractors.pdf.tables.columns import Chunk, chunks_of, gutters_of
from pipeline.ingest.extractors.pdf.tables.words import Word, lines_of

_LINES_MIN: Final = 10
"""Lines with prose on both sides of a gutter."""

_WORDS_MIN: Final = 4
"""Words of a part of a line of prose."""


def by_column(words: Sequence[Word]) -> list[list[Word]]:
    """Return the words of each column of prose, and those of lines over several columns.

    All words are one group if the page has one column.
    """
    lines = [chunks_of(line.words) for line in lines_of(words)]
    places = [gutter.middle for gutter in gutters_of(lines) if _divides_prose(gutter.middle, lines)]
    if not places:
        return [list(words)]
    groups: list[list[Word]] = [[] for _ in range(len(places) + 2)]
    for line in lines:
        is_over = any(chunk.crosses(place) for chunk in line for place in places)
        for chunk in line:
            column = sum(place < chunk.box.left for place in places)
            groups[-1 if is_over else column].extend(chunk.words)
    return [group for group in groups if group]


def _divides_prose(place: float, lines: Sequence[Sequence[Chunk]]) -> bool:
    count = 0
    for line in lines:
        left = [chunk for chunk in line if chunk.box.right <= place]
        right = [chunk for chunk in line if chunk.box.left >= place]
        count += bool(left and right) and all(
            len(chunk.words) >= _WORDS_MIN for chunk in (left[-1], right[0])
        )
    return count >= _LINES_MIN
