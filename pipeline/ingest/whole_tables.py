"""Which tables and figures of a document are final, and what limits leave of a table.

A table that reaches the end of a page may go on on the next one. It is kept back, with all that was found
on its pages, until a page shows that it does not: what is recorded is never changed again, and a worker
that goes on after a kill begins with a page whose first table is not a part of one before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from pipeline.ingest import text
from pipeline.ingest.extractors.layout import FigureFound, PageLayout, TableCell, TableFound
from pipeline.ingest.table_joining import joined
from schemas.outcomes import Outcome


@dataclass(frozen=True, kw_only=True)
class TableLimits:
    """Limits of one table.

    Attributes:
        cells: places, which are rows times columns.
        text_bytes: text of all cells, as UTF-8.
    """

    cells: int
    text_bytes: int


@dataclass(frozen=True, kw_only=True)
class UnsearchedPages:
    """Neighbouring pages some or all of whose tables are missing; `reason` is a sentence for clients."""

    first: int
    last: int
    outcome: Outcome
    reason: str


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What is found on the pages up to `last_page`, in reading order, since the earlier ones."""

    tables: Sequence[TableFound]
    figures: Sequence[FigureFound]
    unsearched: Sequence[UnsearchedPages] = ()
    last_page: int


class WholeTables:
    """Collects pages, in order, and returns what no later page changes."""

    def __init__(self, *, last_page: int, limits: TableLimits) -> None:
        """Begin after a page.

        Args:
            last_page: the page before the first one to add.
            limits: of each table.
        """
        self._limits = limits
        self._added = last_page
        self._open: TableFound | None = None
        self._tables: list[TableFound] = []
        self._figures: list[FigureFound] = []
        self._unsearched: list[UnsearchedPages] = []

    @property
    def places(self) -> int:
        """Places of the tables that are final and not taken yet."""
        return sum(table.row_count * table.column_count for table in self._tables)

    @property
    def last_page(self) -> int:
        """The last page whose tables and figures are final."""
        return self._added if self._open is None else self._open.page - 1

    def add(self, page: PageLayout) -> None:
        """Add the next page."""
        found = [bounded(table, limits=self._limits) for table in page.tables]
        if self._open is not None:
            found = self._with_open(self._open, page.number, found)
        self._open = found.pop() if page.tables else None
        self._tables += found
        self._figures += page.figures
        if page.outcome is not Outcome.COMPLETE:
            self._unsearched.append(
                UnsearchedPages(
                    first=page.number, last=page.number, outcome=page.outcome, reason=page.reason
                )
            )
        self._added = page.number

    def skip(self, pages: UnsearchedPages) -> None:
        """Add the next pages, which were not searched; no table goes on behind them."""
        self.close()
        self._unsearched.append(pages)
        self._added = pages.last

    def close(self) -> None:
        """Make everything final."""
        if self._open is not None:
            self._tables.append(self._open)
            self._open = None

    def take(self) -> Settled:
        """Return what is final, once."""
        last_page = self.last_page
        tables = [table for table in self._tables if table.page <= last_page]
        figures = [figure for figure in self._figures if figure.page <= last_page]
        self._tables = [table for table in self._tables if table.page > last_page]
        self._figures = [figure for figure in self._figures if figure.page > last_page]
        unsearched = [pages for pages in self._unsearched if pages.last <= last_page]
        self._unsearched = [pages for pages in self._unsearched if pages.last > last_page]
        return Settled(tables=tables, figures=figures, unsearched=unsearched, last_page=last_page)

    def _with_open(
        self, before: TableFound, number: int, found: list[TableFound]
    ) -> list[TableFound]:
        """Return the tables of a page after the open one, or joined with it."""
        if not found or not self._fit(before, found[0]):
            return [before, *found]
        pages = (
            PageLayout(number=number - 1, tables=(before,)),
            PageLayout(number=number, tables=tuple(found)),
        )
        return list(joined(pages))

    def _fit(self, before: TableFound, after: TableFound) -> bool:
        rows = before.row_count + after.row_count
        return rows * before.column_count <= self._limits.cells and (
            _text_bytes(before.cells) + _text_bytes(after.cells) <= self._limits.text_bytes
        )


def bounded(table: TableFound, *, limits: TableLimits) -> TableFound:
    """Return the upper rows of a table that limits allow, with text that a database takes."""
    columns = min(table.column_count, limits.cells)
    rows_max = limits.cells // max(columns, 1)
    cells: list[TableCell] = []
    rows, size = 0, 0
    for row, of_row in groupby(_clean(table.cells), key=lambda cell: cell.row):
        kept = [cell for cell in of_row if cell.column < columns]
        size += _text_bytes(kept)
        if row >= rows_max or size > limits.text_bytes:
            rows = min(row, rows_max)
            break
        cells += kept
    else:
        rows = min(table.row_count, rows_max)
    is_cut = rows < table.row_count or columns < table.column_count
    return msgspec.structs.replace(
        table,
        row_count=rows,
        column_count=columns,
        header_row_count=min(table.header_row_count, rows),
        caption=text.clean(table.caption),
        cells=tuple(_within(cell, rows=rows, columns=columns) for cell in cells),
        is_cut=table.is_cut or is_cut,
    )


def _clean(cells: Sequence[TableCell]) -> Iterator[TableCell]:
    for cell in cells:
        content = text.clean(cell.text)
        if content == cell.text:
            yield cell
        elif content.strip():
            yield msgspec.structs.replace(cell, text=content)


def _within(cell: TableCell, *, rows: int, columns: int) -> TableCell:
    row_span = min(cell.row_span, rows - cell.row)
    column_span = min(cell.column_span, columns - cell.column)
    if (row_span, column_span) == (cell.row_span, cell.column_span):
        return cell
    return msgspec.structs.replace(cell, row_span=row_span, column_span=column_span)


def _text_bytes(cells: Sequence[TableCell]) -> int:
    return sum(len(cell.text.encode()) for cell in cells)
