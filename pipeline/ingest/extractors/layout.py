"""Tables and figures of a page, as an extractor finds them."""

import msgspec

from schemas.layout import FigureKind, TableMethod
from schemas.outcomes import Outcome


class TablePart(msgspec.Struct, frozen=True, array_like=True):
    """The place of a table, or of its part, on one page.

    Attributes:
        page: number of the page, from 1.
        left: in 1/72 inch from the left edge of the page as displayed, rounded.
        top: in 1/72 inch from the upper edge of the page as displayed, rounded.
        right: as `left`.
        bottom: as `top`.
    """

    page: int
    left: int
    top: int
    right: int
    bottom: int


class TableCell(msgspec.Struct, frozen=True, array_like=True):
    """A cell with text, and its box on its page.

    Attributes:
        row: of its upper row, from 0.
        column: of its left column, from 0.
        row_span: rows that it covers, at least 1.
        column_span: columns that it covers, at least 1.
        text: not empty; its lines are divided by newlines.
        page: number of the page, from 1.
        left: in 1/72 inch, as in `TablePart`.
        top: as `left`.
        right: as `left`.
        bottom: as `left`.
    """

    row: int
    column: int
    row_span: int
    column_span: int
    text: str
    page: int
    left: int
    top: int
    right: int
    bottom: int


class TableFound(msgspec.Struct, frozen=True, kw_only=True):
    """A table; a table that `joined` returns may go over several pages.

    Attributes:
        parts: its place on each of its pages, at least one.
        row_count: rows, with those of the header.
        column_count: columns.
        header_row_count: upper rows that name the columns; 0 if there seem to be none.
        method: what shows its cells.
        confidence: 0 to 1, that it is a table with these cells.
        caption: the heading that stands above or below; empty if there seems to be none.
        cells: in the order of rows and columns, not overlapping. A place without a cell is empty.
        lines_above: lines of text above it on its first page, outside of tables.
        lines_below: lines of text below it on its last page, outside of tables.
        is_cut: whether its last rows are left out, because of a limit.
    """

    parts: tuple[TablePart, ...]
    row_count: int
    column_count: int
    header_row_count: int = 0
    method: TableMethod
    confidence: float
    caption: str = ""
    cells: tuple[TableCell, ...]
    lines_above: int = 0
    lines_below: int = 0
    is_cut: bool = False

    @property
    def page(self) -> int:
        """Number of its first page."""
        return self.parts[0].page


class FigureFound(msgspec.Struct, frozen=True, kw_only=True):
    """A figure.

    Attributes:
        page: number of the page, from 1.
        kind: what it is made of.
        left: in 1/72 inch from the left edge of the page as displayed, rounded.
        top: in 1/72 inch from the upper edge of the page as displayed, rounded.
        right: as `left`.
        bottom: as `top`.
        width_pixels: of an image, as stored in the file; None for a chart.
        height_pixels: as `width_pixels`.
    """

    page: int
    kind: FigureKind
    left: int
    top: int
    right: int
    bottom: int
    width_pixels: int | None = None
    height_pixels: int | None = None


class PageLayout(msgspec.Struct, frozen=True, kw_only=True):
    """The tables and figures of one page.

    Attributes:
        number: of the page, from 1.
        outcome: `COMPLETE`, or why tables or figures are missing.
        reason: a sentence for clients about an outcome that is not `COMPLETE`.
        tables: from top to bottom.
        figures: from top to bottom.
    """

    number: int
    outcome: Outcome = Outcome.COMPLETE
    reason: str = ""
    tables: tuple[TableFound, ...] = ()
    figures: tuple[FigureFound, ...] = ()


class LayoutLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one page; what goes beyond is left out and flagged.

    Attributes:
        tables: tables of a page.
        figures: figures of a page.
        cells: cells of all tables of a page.
        cell_characters: text of a cell.
        words: words that are looked at.
        objects: lines, areas and images of the page that are looked at.
    """

    tables: int = 50
    figures: int = 100
    cells: int = 10_000
    cell_characters: int = 10_000
    words: int = 20_000
    objects: int = 50_000
