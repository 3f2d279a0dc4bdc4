"""PDFs: which engine reads a page, and what becomes of its text."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pipeline.ingest.errors import DocumentEmpty
from pipeline.ingest.extractors.extractor import (
    ExtractedPage,
    Extractor,
    OpenDocument,
    PageImage,
    Structure,
)
from pipeline.ingest.extractors.pdf import page_text, pdfium
from pipeline.ingest.extractors.pdf.pdfium import PdfiumDocument
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome


class PdfDocument(OpenDocument):
    """An open PDF."""

    def __init__(self, document: PdfiumDocument, *, limits: ReadingLimits) -> None:
        self._pdfium = document
        self._limits = limits
        self.page_count = document.page_count
        if self.page_count == 0:
            raise DocumentEmpty

    def page(self, number: int) -> ExtractedPage:
        with self._pdfium.page(number) as page:
            content = page_text.read(page, longest=self._limits.page_characters)
            outcome = Outcome.COMPLETE if content.text else Outcome.NO_TEXT
            if page.character_count > self._limits.page_characters:
                outcome = Outcome.LIMIT_PAGE_TEXT
            return ExtractedPage(
                number=number,
                outcome=outcome,
                text=content.text,
                lines=content.lines,
                width_points=page.width,
                height_points=page.height,
                engine="pdfium",
                engine_version=pdfium.VERSION,
            )

    def structure(self) -> Structure:
        return Structure()

    def image(self, number: int, *, dpi: float, pixels_max: int, grey: bool) -> PageImage | None:
        return self._pdfium.image(number, dpi=dpi, pixels_max=pixels_max, grey=grey)


class PdfExtractor(Extractor):
    """Opens PDFs."""

    name: ClassVar[str] = "pdf"
    media_types: ClassVar[frozenset[str]] = frozenset({"application/pdf"})

    @contextmanager
    def open(
        self, file: Path, *, limits: ReadingLimits, password: str | None
    ) -> Iterator[OpenDocument]:
        document = PdfiumDocument(file, password=password)
        try:
            yield PdfDocument(document, limits=limits)
        finally:
            document.close()
