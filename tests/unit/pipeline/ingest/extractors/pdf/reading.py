"""Reads a page of a PDF that a test draws."""

from pathlib import Path

from pipeline.ingest.extractors.pdf import page_text
from pipeline.ingest.extractors.pdf.page_text import PageText
from pipeline.ingest.extractors.pdf.pdfium import PdfiumDocument
from tests.factories.drawn_pdfs import Shown, pdf


def read(directory: Path, *shown: Shown, unicode_values: dict[str, str] | None = None) -> PageText:
    """Return the text of a page that shows `shown`."""
    return read_file(directory, pdf(shown, unicode_values=unicode_values))


def read_file(directory: Path, content: bytes, *, number: int = 1) -> PageText:
    file = directory / "drawn.pdf"
    file.write_bytes(content)
    document = PdfiumDocument(file)
    try:
        with document.page(number) as page:
            return page_text.read(page, page.characters(longest=100_000))
    finally:
        document.close()


def lines_of(content: PageText) -> list[str]:
    """Return the text of the lines that have a box."""
    return [content.text[line.start : line.end] for line in content.lines]


def paragraph(*lines: str, x: float = 72, y: float = 700) -> list[Shown]:
    """Lines below each other."""
    return [Shown(text=text, x=x, y=y - 14 * number) for number, text in enumerate(lines)]
