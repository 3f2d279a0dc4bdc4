"""Headings over several columns of a table, where no line shows their width."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box, around
from pipeline.ingest.extractors.pdf.tables.draft import Draft, DraftCell
from pipeline.ingest.extractors.pdf.tables.headers import header_rows

_CENTERED: Final = 0.08
"""How far the middle of a heading may be from that of its columns, as a fraction of their width."""

Cells = Mapping[tuple[int, int], DraftCell]
"""Cells by row and column."""


def with_spans(draft: Draft) -> Draft:
    """Return a table whose headings span the columns over which they are centered.

    Those columns are empty beside the heading, and each has text in the next row of the header.
    """
    headings = header_rows(draft) - 1
    cells: Cells = {(cell.row, cell.column): cell for cell in draft.cells}
    found = [
        _spanning(cell, cells, draft.column_count)
        if cell.row < headings and cell.row_span == cell.column_span == 1
        else cell
        for cell in draft.cells
    ]
    return replace(draft, cells=sorted(found, key=lambda cell: (cell.row, cell.column)))


def _spanning(cell: DraftCell, cells: Cells, columns: int) -> DraftCell:
    below = cell.row + 1

    beside = [other.ink for other in cells.values() if other.row == cell.row]

    def is_free(column: int) -> bool:
        """Whether a column has no heading, and this one is the nearest."""
        if (cell.row, column) in cells or (below, column) not in cells:
            return False
        ink = cells[below, column].ink
        return min(beside, key=lambda other: abs(_middle(other) - _middle(ink))) == cell.ink

    first = last = cell.column
    while first > 0 and is_free(first - 1):
        first -= 1
    while last + 1 < columns and is_free(last + 1):
        last += 1
    ranges = [
        (begin, end)
        for begin in range(first, cell.column + 1)
        for end in range(cell.column, last + 1)
        if begin < end and (below, begin) in cells and (below, end) in cells
    ]
    # The widest first.
    for begin, end in sorted(ranges, key=lambda each: each[0] - each[1]):
        left, right = cells[below, begin].ink.left, cells[below, end].ink.right
        off = abs(_middle(cell.ink) - (left + right) / 2)
        if off <= _CENTERED * (right - left):
            ends = [cells[below, begin].box, cells[below, end].box]
            return replace(
                cell,
                column=begin,
                column_span=end - begin + 1,
                box=cell.box._replace(left=around(ends).left, right=around(ends).right),
            )
    return cell


def _middle(box: Box) -> float:
    return (box.left + box.right) / 2
