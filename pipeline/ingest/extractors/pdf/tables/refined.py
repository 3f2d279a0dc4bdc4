"""Divides the cells of a grid where its words show more columns and rows than its rules."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from pipeline.ingest.extractors.pdf.tables.columns import (
    Chunk,
    chunks_of,
    divides_numbers,
    gutters_of,
)
from pipeline.ingest.extractors.pdf.tables.grid import Grid, GridCell
from pipeline.ingest.extractors.pdf.tables.rows import TextLine, row_starts
from pipeline.ingest.extractors.pdf.tables.words import Word, WordLine, lines_of

_NEAR_RULE: Final = 2.0
"""A gutter this near a rule is that of the rule."""


def refined(grid: Grid, words: Sequence[Word]) -> Grid:
    """Return a grid with further columns and rows.

    A cell is divided where a column or row begins and none of its words is in the way. Between
    rules, only numbers show a further column or row: text may be wrapped.

    Args:
        grid: the rules; one column if there are no vertical ones.
        words: those inside of the grid.
    """
    is_ruled = len(grid.xs) > 2  # noqa: PLR2004  # an inner rule
    bands = _bands(grid, words)
    places = _further_places(grid, [line for band in bands for line in band], is_ruled=is_ruled)
    xs = sorted([*grid.xs, *places])
    # Rows first: a heading over several columns is in the way of a cell of several rows only.
    taller = _with_rows(grid, xs, bands, is_ruled=is_ruled)
    return _with_columns(taller, xs, places, _bands(taller, words))


def _bands(grid: Grid, words: Sequence[Word]) -> list[list[WordLine]]:
    """Return the lines of words between each two horizontal rules."""
    inside: list[list[Word]] = [[] for _ in range(len(grid.ys) - 1)]
    for word in words:
        row = bisect_right(grid.ys, (word.box.top + word.box.bottom) / 2) - 1
        if 0 <= row < len(inside):
            inside[row].append(word)
    return [lines_of(band) for band in inside]


def _with_columns(
    grid: Grid,
    xs: Sequence[float],
    places: Collection[float],
    bands: Sequence[Sequence[WordLine]],
) -> Grid:
    cells = []
    for cell in grid.cells:
        first = bisect_left(xs, grid.xs[cell.column])
        end = bisect_left(xs, grid.xs[cell.column + cell.column_span])
        within = [
            chunk
            for band in bands[cell.row : cell.row + cell.row_span]
            for line in band
            for chunk in chunks_of(_between(line.words, xs[first], xs[end]))
        ]
        splits = [
            index
            for index in range(first + 1, end)
            if _divides(within, xs[index], is_rule=xs[index] not in places)
        ]
        cells += [
            replace(cell, column=begin, column_span=stop - begin)
            for begin, stop in pairwise([first, *splits, end])
        ]
    return replace(grid, xs=xs, cells=cells)


def _further_places(grid: Grid, lines: Sequence[WordLine], *, is_ruled: bool) -> set[float]:
    places = set()
    for left, right in pairwise(grid.xs):
        within = [chunks_of(_between(line.words, left, right)) for line in lines]
        filled = [line for line in within if line]
        for gutter in gutters_of(filled):
            is_near = gutter.left - _NEAR_RULE <= left or right <= gutter.right + _NEAR_RULE
            if not is_near and (not is_ruled or divides_numbers(gutter, filled)):
                places.add(gutter.middle)
    return places


def _between(words: Sequence[Word], left: float, right: float) -> list[Word]:
    return [word for word in words if left <= word.middle < right]


def _divides(chunks: Sequence[Chunk], place: float, *, is_rule: bool) -> bool:
    """Return whether a cell is divided at a place where other rows have a rule or gutter."""
    if not chunks or any(chunk.crosses(place) for chunk in chunks):
        return False
    if not is_rule:
        return True
    # A cell over several columns has its text somewhere; texts on both sides are two cells.
    return any(chunk.box.right <= place for chunk in chunks) and any(
        chunk.box.left >= place for chunk in chunks
    )


def _with_rows(
    grid: Grid, xs: Sequence[float], bands: Sequence[Sequence[WordLine]], *, is_ruled: bool
) -> Grid:
    ys = [grid.ys[0]]
    first_of: list[int] = [0]  # the first new row of each band, and the end
    for (_, bottom), band in zip(pairwise(grid.ys), bands, strict=True):
        lines = list(_text_lines(xs, band))
        ys += [
            (lines[start - 1].bottom + lines[start].top) / 2
            for start in row_starts(lines, is_ruled=is_ruled)
            if start > 0
        ]
        ys.append(bottom)
        first_of.append(len(ys) - 1)
    return replace(grid, ys=ys, cells=list(_divided(grid.cells, first_of)))


def _divided(cells: Sequence[GridCell], first_of: Sequence[int]) -> Iterator[GridCell]:
    divided = []
    for cell in cells:
        first, end = first_of[cell.row], first_of[cell.row + cell.row_span]
        if cell.row_span == 1:
            divided += [replace(cell, row=row, row_span=1) for row in range(first, end)]
        else:
            divided.append(replace(cell, row=first, row_span=end - first))
    return iter(sorted(divided, key=lambda cell: (cell.row, cell.column)))


def _text_lines(xs: Sequence[float], lines: Sequence[WordLine]) -> Iterator[TextLine]:
    for line in lines:
        texts: dict[int, str] = {}
        edges: dict[int, tuple[float, float]] = {}
        is_spanning = False
        for chunk in chunks_of(line.words):
            column = max(0, bisect_right(xs, chunk.box.left + 1) - 1)
            is_spanning = is_spanning or bisect_left(xs, chunk.box.right - 1) > column + 1
            left, _ = edges.get(column, (chunk.box.left, 0.0))
            edges[column] = left, chunk.box.right
            texts[column] = f"{texts[column]} {chunk.text}" if column in texts else chunk.text
        yield TextLine(
            top=line.box.top,
            bottom=line.box.bottom,
            texts=texts,
            edges=edges,
            is_spanning=is_spanning,
        )
