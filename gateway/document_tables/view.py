"""Tables and figures as clients see them."""

import csv
import io
from typing import Any

import msgspec

from schemas.api.document_tables import (
    DocumentFigure,
    DocumentTable,
    TableCell,
    TablePart,
    TableSummary,
)
from schemas.api.documents import Box
from schemas.policy.spreadsheets import guarded
from schemas.tables import documents as tables
from schemas.tables.documents import Document, Figure


def show_summary(table: Any) -> TableSummary:  # noqa: ANN401  # a row with the columns of `DocumentTable`, or that
    return TableSummary(
        number=table.number,
        page=table.page,
        parts=[
            TablePart(page=page, box=Box(left=left, top=top, right=right, bottom=bottom))
            for page, left, top, right, bottom in table.parts
        ],
        row_count=table.row_count,
        column_count=table.column_count,
        header_row_count=table.header_row_count,
        cell_count=table.cell_count,
        method=table.method,
        confidence=table.confidence,
        caption=table.caption,
        is_cut=table.is_cut,
    )


def show_table(table: tables.DocumentTable, document: Document) -> DocumentTable:
    return DocumentTable(
        document_id=document.id,
        **msgspec.structs.asdict(show_summary(table)),
        cells=[
            TableCell(
                row=row,
                column=column,
                row_span=row_span,
                column_span=column_span,
                text=text,
                page=page,
                box=Box(left=left, top=top, right=right, bottom=bottom),
            )
            for row, column, row_span, column_span, text, page, left, top, right, bottom in (
                table.cells
            )
        ],
    )


def csv_of(table: tables.DocumentTable) -> bytes:
    """Return the rows of a table (RFC 4180); the text of a cell with spans is in its first place.

    Text that a spreadsheet would calculate gets an apostrophe in front.
    """
    rows = [[""] * table.column_count for _ in range(table.row_count)]
    for row, column, _, _, text, *_ in table.cells:
        rows[row][column] = guarded(text)
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return written.getvalue().encode()


def show_figure(figure: Figure) -> DocumentFigure:
    return DocumentFigure(
        number=figure.number,
        page=figure.page,
        kind=figure.kind,
        box=Box(left=figure.left, top=figure.top, right=figure.right, bottom=figure.bottom),
        width_pixels=figure.width_pixels,
        height_pixels=figure.height_pixels,
    )
