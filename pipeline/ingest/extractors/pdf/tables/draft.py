"""A table while it is found."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.ingest.extractors.pdf.geometry import Box
from schemas.layout import TableMethod


@dataclass(frozen=True, kw_only=True)
class DraftCell:
    """A cell with text.

    Attributes:
        row: its first row, from 0.
        column: its first column, from 0.
        row_span: rows.
        column_span: columns.
        text: not empty.
        box: its place.
        ink: around its words.
    """

    row: int
    column: int
    row_span: int = 1
    column_span: int = 1
    text: str
    box: Box
    ink: Box


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A table of one page.

    Attributes:
        box: its place.
        method: what shows its cells.
        row_count: rows.
        column_count: columns.
        cells: cells with text, by row and column.
    """

    box: Box
    method: TableMethod
    row_count: int
    column_count: int
    cells: Sequence[DraftCell]

    @property
    def filled_share(self) -> float:
        """Share of the places of the grid that a cell with text covers."""
        covered = sum(cell.row_span * cell.column_span for cell in self.cells)
        return covered / (self.row_count * self.column_count)


def compact(draft: Draft) -> Draft:
    """Return the table without the rows and columns in which no cell with text begins."""
    rows = sorted({cell.row for cell in draft.cells})
    columns = sorted({cell.column for cell in draft.cells})
    cells = [
        replace(
            cell,
            row=bisect_left(rows, cell.row),
            column=bisect_left(columns, cell.column),
            row_span=_between(rows, cell.row, cell.row_span),
            column_span=_between(columns, cell.column, cell.column_span),
        )
        for cell in draft.cells
    ]
    return replace(draft, row_count=len(rows), column_count=len(columns), cells=cells)


def _between(kept: Sequence[int], first: int, span: int) -> int:
    return bisect_left(kept, first + span) - bisect_left(kept, first)
