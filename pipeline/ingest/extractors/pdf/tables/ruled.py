"""Fills the grids of a page with its words."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from pipeline.ingest.extractors.pdf.geometry import Box, around
from pipeline.ingest.extractors.pdf.tables.draft import Draft, DraftCell, compact
from pipeline.ingest.extractors.pdf.tables.grid import Grid
from pipeline.ingest.extractors.pdf.tables.words import Word, divided, text_of
from schemas.layout import TableMethod


def filled(grid: Grid, words: Sequence[Word], *, method: TableMethod) -> Draft:
    """Return the table that a grid and the words inside of it form; perhaps without a cell."""
    places: dict[tuple[int, int], int] = {
        (row, column): index
        for index, cell in enumerate(grid.cells)
        for row in range(cell.row, cell.row + cell.row_span)
        for column in range(cell.column, cell.column + cell.column_span)
    }
    contents: list[list[Word]] = [[] for _ in grid.cells]
    for row, word in _by_row(grid, words):
        walls = [
            grid.xs[column]
            for column in range(1, len(grid.xs) - 1)
            if places[row, column - 1] != places[row, column]
        ]
        for part in divided(word, walls):
            column = _index(grid.xs, part.middle)
            if column is not None:
                contents[places[row, column]].append(part)
    cells = [
        DraftCell(
            row=cell.row,
            column=cell.column,
            row_span=cell.row_span,
            column_span=cell.column_span,
            text=text_of(inside),
            box=grid.box_of(cell),
            ink=around([word.box for word in inside]),
        )
        for cell, inside in zip(grid.cells, contents, strict=True)
        if inside
    ]
    draft = Draft(
        box=grid.box,
        method=method,
        row_count=len(grid.ys) - 1,
        column_count=len(grid.xs) - 1,
        cells=cells,
    )
    return compact(draft)


def _by_row(grid: Grid, words: Sequence[Word]) -> Iterator[tuple[int, Word]]:
    """Yield the words inside of a grid, with the row of each."""
    for word in words:
        row = _index(grid.ys, (word.box.top + word.box.bottom) / 2)
        if row is not None and is_inside(word.box, grid.box):
            yield row, word


def _index(places: Sequence[float], place: float) -> int | None:
    index = bisect_right(places, place) - 1
    return index if 0 <= index < len(places) - 1 else None


def is_inside(box: Box, outer: Box) -> bool:
    """Return whether the middle of a box is inside of another one."""
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    return outer.left <= x <= outer.right and outer.top <= y <= outer.bottom
