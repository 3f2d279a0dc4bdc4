"""Tables and figures as an extractor finds them."""

from collections.abc import Sequence

from pipeline.ingest.extractors.layout import (
    FigureFound,
    PageLayout,
    TableCell,
    TableFound,
    TablePart,
)
from schemas.layout import FigureKind, TableMethod

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
