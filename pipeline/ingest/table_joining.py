"""Joins tables that go on on the next page and repeat their header there."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import msgspec

from pipeline.ingest.extractors.layout import PageLayout, TableCell, TableFound

# Columns of one table are at the same places of each page, but for rounding and a gutter.
_TOLERANCE: Final = 3
_GUTTER_MAX: Final = 60
_LINES_BELOW_MAX: Final = 8
_LINES_ABOVE_MAX: Final = 4
_NUMBERED: Final = re.compile(r"\w+\.?\s*[\dIVX.]+")
_CELLS_MAX: Final = 100_000
"""Cells of a joined table; a longer table goes on as another one."""


def joined(pages: Iterable[PageLayout]) -> Iterator[TableFound]:
    """Yield the tables of `pages`, which are in order; those that go on are one table.

    The first table of a page continues the last table of the page before, if both have the same
    columns and the same header, no caption with another number, and little text between them:
    the footer and footnotes of one page, and the header of the next. The repeated header is left
    out, and the cells keep the number of their page.

    A table is kept until the next page shows that it does not go on.
    """
    open_table: TableFound | None = None
    for page in pages:
        tables = list(page.tables)
        if open_table is not None:
            if (
                tables
                and page.number == open_table.parts[-1].page + 1
                and _goes_on(open_table, tables[0])
            ):
                tables[0] = _appended(open_table, tables[0])
            else:
                yield open_table
            open_table = None
        if tables:
            yield from tables[:-1]
            open_table = tables[-1]
    if open_table is not None:
        yield open_table


def _goes_on(before: TableFound, after: TableFound) -> bool:
    header = _header(before)
    if (
        not header
        or before.is_cut
        or before.column_count != after.column_count
        or before.header_row_count != after.header_row_count
        or before.lines_below > _LINES_BELOW_MAX
        or after.lines_above > _LINES_ABOVE_MAX
        or _number(after.caption) not in {"", _number(before.caption)}
        or len(before.cells) + len(after.cells) > _CELLS_MAX
    ):
        return False
    repeated = _header(after)
    if len(header) != len(repeated):
        return False
    shift = repeated[0].left - header[0].left
    return abs(shift) <= _GUTTER_MAX and all(
        _is_repeated(cell, other, shift=shift) for cell, other in zip(header, repeated, strict=True)
    )


def _number(caption: str) -> str:
    """Return the name and number at the beginning of a caption, such as `Table 3`."""
    match = _NUMBERED.match(caption)
    return match[0].casefold().rstrip(".") if match else ""


def _header(table: TableFound) -> list[TableCell]:
    """Return the cells of the header on the first page of the table."""
    return [cell for cell in table.cells if cell.row < table.header_row_count]


def _is_repeated(cell: TableCell, other: TableCell, *, shift: int) -> bool:
    return (
        (cell.row, cell.column, cell.row_span, cell.column_span)
        == (other.row, other.column, other.row_span, other.column_span)
        and cell.text.split() == other.text.split()
        and abs(other.left - cell.left - shift) <= _TOLERANCE
        and abs(other.right - cell.right - shift) <= _TOLERANCE
    )


def _appended(before: TableFound, after: TableFound) -> TableFound:
    header = after.header_row_count
    below = before.row_count - header
    rows = (
        msgspec.structs.replace(cell, row=cell.row + below)
        for cell in after.cells
        if cell.row >= header
    )
    return msgspec.structs.replace(
        before,
        parts=(*before.parts, *after.parts),
        row_count=before.row_count + after.row_count - header,
        confidence=min(before.confidence, after.confidence),
        cells=tuple(chain(before.cells, rows)),
        lines_below=after.lines_below,
        is_cut=after.is_cut,
    )
