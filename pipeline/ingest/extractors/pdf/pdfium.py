"""PDFium's view of a PDF: characters, boxes and pixels of a page; runs only in the sandbox child."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as c

from pipeline.ingest.errors import DocumentEncrypted
from pipeline.ingest.extractors.extractor import PageImage

VERSION: Final = str(pypdfium2.PDFIUM_INFO)

_POINTS_PER_INCH: Final = 72


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle on the page as displayed, in 1/72 inch from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


class PdfiumPage:
    """A loaded page.

    Attributes:
        raw: PDFium's handle of the page.
        raw_text_page: PDFium's handle of its text.
        width: as displayed, in 1/72 inch.
        height: as displayed, in 1/72 inch.
    """

    def __init__(self, raw: Any, raw_text_page: Any) -> None:  # noqa: ANN401  # ctypes handles
        self.raw = raw
        self.raw_text_page = raw_text_page
        self.width = float(c.FPDF_GetPageWidthF(raw))
        self.height = float(c.FPDF_GetPageHeightF(raw))
        self.character_count = max(0, c.FPDFText_CountChars(raw_text_page))

    def raw_text(self) -> str:
        """Return the text as PDFium orders it: lines end with CR LF, U+FFFE stands for a hyphen."""
        # A character is at most two UTF-16 units; the last one is a NUL.
        buffer = (ctypes.c_ushort * (2 * self.character_count + 1))()
        written = c.FPDFText_GetText(self.raw_text_page, 0, self.character_count, buffer)
        units = bytes(buffer)[: 2 * max(0, written - 1)]
        return units.decode("utf-16-le", "surrogatepass")


class PdfiumDocument:
    """An open PDF."""

    def __init__(self, file: Path, *, password: str | None = None) -> None:
        """Open a file.

        Raises:
            DocumentEncrypted: the file needs a password, or another one.
            pypdfium2.PdfiumError: PDFium does not open the file.
        """
        try:
            self._document = pypdfium2.PdfDocument(file, password=password)
        except pypdfium2.PdfiumError as error:
            if error.err_code in (c.FPDF_ERR_PASSWORD, c.FPDF_ERR_SECURITY):
                raise DocumentEncrypted from error
            raise
        self.page_count = len(self._document)

    def close(self) -> None:
        self._document.close()

    @contextmanager
    def page(self, number: int) -> Iterator[PdfiumPage]:
        """Load page `number`, from 1, and its text.

        Raises:
            pypdfium2.PdfiumError: PDFium does not load the page.
        """
        raw = c.FPDF_LoadPage(self._document, number - 1)
        if not raw:
            raise pypdfium2.PdfiumError("page not loaded")
        try:
            raw_text_page = c.FPDFText_LoadPage(raw)
            if not raw_text_page:
                raise pypdfium2.PdfiumError("text of the page not loaded")
            try:
                yield PdfiumPage(raw, raw_text_page)
            finally:
                c.FPDFText_ClosePage(raw_text_page)
        finally:
            c.FPDF_ClosePage(raw)

    def image(self, number: int, *, dpi: float, pixels_max: int, grey: bool) -> PageImage:
        """Return page `number` as displayed, at a lower resolution if it has too many pixels."""
        page = self._document[number - 1]
        try:
            width, height = page.get_size()
            # One row and one column for rounding up.
            scale = dpi / _POINTS_PER_INCH
            pixels = (width * scale + 1) * (height * scale + 1)
            if pixels > pixels_max:
                scale *= (pixels_max / pixels) ** 0.5
            bitmap = page.render(scale=scale, grayscale=grey, rev_byteorder=True)
            try:
                channels = 1 if grey else 3
                row = bitmap.width * channels
                pixel_rows = bytes(bitmap.buffer)
                if bitmap.stride != row:
                    pixel_rows = b"".join(
                        pixel_rows[start : start + row]
                        for start in range(0, bitmap.height * bitmap.stride, bitmap.stride)
                    )
                return PageImage(
                    width=bitmap.width,
                    height=bitmap.height,
                    channels=channels,
                    pixels=pixel_rows,
                    dpi=scale * _POINTS_PER_INCH,
                )
            finally:
                bitmap.close()
        finally:
            page.close()
