"""Finds the tables and figures of PDFs that tests make."""

from pathlib import Path

from pipeline.ingest.extractors.layout import LayoutLimits, PageLayout, TableFound
from pipeline.ingest.extractors.pdf.document import PdfExtractor
from tests.factories.reading_limits import READING_LIMITS


def layouts(
    directory: Path, content: bytes, *, limits: LayoutLimits | None = None
) -> list[PageLayout]:
    """Return the layout of each page."""
    file = directory / "tables.pdf"
    file.write_bytes(content)
    with PdfExtractor().open(file, limits=READING_LIMITS, password=None) as document:
        return [
            document.layout(number, limits=limits or LayoutLimits())
            for number in range(1, document.page_count + 1)
        ]


def rows_of(table: TableFound) -> list[list[str]]:
    """Return the texts of a table by row and column; a spanning cell has its text once."""
    rows = [[""] * table.column_count for _ in range(table.row_count)]
    for cell in table.cells:
        rows[cell.row][cell.column] = cell.text
    return rows
