"""Tables and figures as an extractor finds them, and as rows."""

from collections.abc import Sequence

import msgspec

from pipeline.ingest.extractors.layout import (
    FigureFound,
    PageLayout,
    TableCell,
    TableFound,
    TablePart,
)
from schemas.ids import RevisionId
from schemas.layout import FigureKind, TableMethod
from schemas.tables.documents import DocumentTable, Figure

HEADER = ("Port", "Cargo", "Weight")


def a_table(
    *rows: Sequence[str], page: int = 1, header: Sequence[str] = HEADER, caption: str = ""
) -> TableFound:
    """Return a table with one cell for each text that is not empty."""
    all_rows = (header, *rows) if header else rows
    return TableFound(
        parts=(TablePart(page, 72, 90, 72 + 100 * len(all_rows[0]), 90 + 20 * len(all_rows)),),
        row_count=len(all_rows),
        column_count=len(all_rows[0]),
        header_row_count=1 if header else 0,
        method=TableMethod.RULED,
        confidence=0.9,
        caption=caption,
        cells=tuple(
            TableCell(
                row,
                column,
                1,
                1,
                text,
                page,
                72 + 100 * column,
                90 + 20 * row,
                172 + 100 * column,
                110 + 20 * row,
            )
            for row, texts in enumerate(all_rows)
            for column, text in enumerate(texts)
            if text
        ),
    )


def a_figure(page: int = 1) -> FigureFound:
    return FigureFound(
        page=page,
        kind=FigureKind.IMAGE,
        left=100,
        top=200,
        right=300,
        bottom=400,
        width_pixels=640,
        height_pixels=480,
    )


def a_layout(*tables: TableFound, number: int = 1, figures: int = 0) -> PageLayout:
    return PageLayout(
        number=number, tables=tables, figures=tuple(a_figure(number) for _ in range(figures))
    )


def table_row(revision_id: RevisionId, found: TableFound, *, number: int = 1) -> DocumentTable:
    return DocumentTable(
        revision_id=revision_id,
        number=number,
        page=found.page,
        parts=msgspec.to_builtins(found.parts),
        row_count=found.row_count,
        column_count=found.column_count,
        header_row_count=found.header_row_count,
        method=found.method,
        confidence=found.confidence,
        caption=found.caption,
        is_cut=found.is_cut,
        cell_count=len(found.cells),
        cells=msgspec.to_builtins(found.cells),
    )


def figure_row(revision_id: RevisionId, found: FigureFound, *, number: int = 1) -> Figure:
    return Figure(revision_id=revision_id, number=number, **msgspec.structs.asdict(found))
