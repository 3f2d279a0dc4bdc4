"""PDFium's view of a PDF: characters, boxes and pixels of a page; runs only in the sandbox child."""

import ctypes
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as c

from pipeline.ingest.errors import DocumentEncrypted
from pipeline.ingest.extractors.extractor import PageImage
from pipeline.ingest.extractors.pdf.geometry import Box

VERSION: Final = str(pypdfium2.PDFIUM_INFO)

DIVISION: Final = "\ufffe"
"""What stands for a hyphen and the end of its line, where a letter stands on both sides."""

_POINTS_PER_INCH: Final = 72
_DOUBLE: Final = ctypes.sizeof(ctypes.c_double)
_BOX_OF_DOUBLES: Final = struct.Struct("4d")  # left, top, right, bottom
_BOX_OF_FLOATS: Final = struct.Struct("4f")


def with_addresses(function: Any, *arguments: Any, returns: Any = ctypes.c_int) -> Any:  # noqa: ANN401  # ctypes is untyped
    """Return a function of PDFium that takes addresses: three times as fast as typed pointers."""
    return ctypes.cast(function, ctypes.CFUNCTYPE(returns, *arguments))


_count_rects: Final = with_addresses(
    c.FPDFText_CountRects, ctypes.c_void_p, ctypes.c_int, ctypes.c_int
)
_get_rect: Final = with_addresses(
    c.FPDFText_GetRect, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 4
)
_get_character_box: Final = with_addresses(
    c.FPDFText_GetLooseCharBox, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
)


class PdfiumPage:
    """A loaded page.

    Attributes:
        raw: PDFium's handle of the page.
        raw_text: PDFium's handle of its text.
        width: as displayed, in 1/72 inch.
        height: as displayed, in 1/72 inch.
        character_count: characters, with the spaces and line ends that PDFium adds.
    """

    def __init__(self, raw: Any, raw_text: Any) -> None:  # noqa: ANN401  # ctypes handles
        self.raw = raw
        self.raw_text = raw_text
        self.width = float(c.FPDF_GetPageWidthF(raw))
        self.height = float(c.FPDF_GetPageHeightF(raw))
        self.character_count = max(0, c.FPDFText_CountChars(raw_text))
        self._address = ctypes.cast(raw_text, ctypes.c_void_p).value
        bounds = c.FS_RECTF()
        c.FPDF_GetPageBoundingBox(raw, bounds)
        self._left, self._bottom = bounds.left, bounds.bottom
        self._right, self._top = bounds.right, bounds.top
        self._quarter_turns = c.FPDFPage_GetRotation(raw)
        self._memory = bytearray()
        self._memory_address = 0

    def characters(self, *, longest: int) -> str:
        """Return at most the first `longest` characters as PDFium orders them.

        A line ends with CR LF. U+FFFE stands for a hyphen and the end of its line, NUL for a glyph
        without a Unicode value. An index in the string is PDFium's index of the character.
        """
        count = min(self.character_count, longest)
        # A character is at most two UTF-16 units; a NUL ends them.
        buffer = (ctypes.c_ushort * (2 * count + 1))()
        written = c.FPDFText_GetText(self.raw_text, 0, count, buffer)
        units = memoryview(buffer).cast("B")[: 2 * max(0, written - 1)]
        text = str(units, "utf-16-le", "surrogatepass")
        if len(text) != count:  # PDFium leaves out some characters, and has another division
            values = (c.FPDFText_GetUnicode(self.raw_text, index) for index in range(count))
            text = "".join(map(chr, values)).replace("\x02", DIVISION)
        # PDFium has the same value for a glyph without a Unicode value.
        first, *others = text.split(DIVISION)
        parts = [first]
        index = len(first)
        for other in others:
            is_hyphen = c.FPDFText_IsHyphen(self.raw_text, index) == 1
            parts += DIVISION if is_hyphen else "\0", other
            index += 1 + len(other)
        return "".join(parts)

    def boxes(self, start: int, count: int) -> list[Box]:
        """Return the boxes around the ink of each part of the characters that has one style."""
        parts = max(0, _count_rects(self._address, start, count))
        buffer, address = self._buffer(parts * _BOX_OF_DOUBLES.size)
        for part in range(parts):
            _get_rect(
                self._address,
                part,
                address,
                address + _DOUBLE,
                address + 2 * _DOUBLE,
                address + 3 * _DOUBLE,
            )
            address += _BOX_OF_DOUBLES.size
        return self.as_displayed(_BOX_OF_DOUBLES.iter_unpack(buffer))

    def character_boxes(self, start: int, count: int) -> list[Box]:
        """Return a box for each character: as wide as its advance, as high as its font.

        A space that PDFium adds has no width.
        """
        return self.boxes_at(range(start, start + count))

    def boxes_at(self, indexes: Sequence[int]) -> list[Box]:
        """Return the box of each of some characters, as `character_boxes` does."""
        buffer, address = self._buffer(len(indexes) * _BOX_OF_FLOATS.size)
        for index in indexes:
            _get_character_box(self._address, index, address)
            address += _BOX_OF_FLOATS.size
        return self.as_displayed(_BOX_OF_FLOATS.iter_unpack(buffer))

    def _buffer(self, size: int) -> tuple[memoryview, int]:
        """Return memory for PDFium to write to, and its address; valid until the next call."""
        if size > len(self._memory):
            self._memory = bytearray(2 * size)
            self._memory_address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        return memoryview(self._memory)[:size], self._memory_address

    def as_displayed(self, edges: Iterable[tuple[float, ...]]) -> list[Box]:
        """Return the boxes of `edges`, which are left, top, right and bottom in the file."""
        x, y, right, top = self._left, self._bottom, self._right, self._top
        # The constructor of a named tuple takes half of the time of this function.
        box = partial(tuple.__new__, Box)
        match self._quarter_turns:
            case 0:
                return [box((le - x, top - to, ri - x, top - bo)) for le, to, ri, bo in edges]
            case 1:
                return [box((bo - y, le - x, to - y, ri - x)) for le, to, ri, bo in edges]
            case 2:
                return [box((right - ri, bo - y, right - le, to - y)) for le, to, ri, bo in edges]
            case _:
                return [
                    box((top - to, right - ri, top - bo, right - le)) for le, to, ri, bo in edges
                ]


class PdfiumDocument:
    """An open PDF."""

    def __init__(self, file: Path, *, password: str | None = None) -> None:
        """Open a file.

        Raises:
            DocumentEncrypted: the file needs a password, or another one.
            pypdfium2.PdfiumError: PDFium does not open the file.
        """
        try:
            self.document = pypdfium2.PdfDocument(file, password=password)
        except pypdfium2.PdfiumError as error:
            if error.err_code in (c.FPDF_ERR_PASSWORD, c.FPDF_ERR_SECURITY):
                raise DocumentEncrypted from error
            raise
        # Before the first page is loaded, else the fields of its forms have no value.
        self.document.init_forms()
        self.raw_form = self.document.formenv.raw if self.document.formenv else None
        self.page_count = len(self.document)

    def close(self) -> None:
        self.document.close()

    @contextmanager
    def page(self, number: int) -> Iterator[PdfiumPage]:
        """Load page `number`, from 1, and its text.

        Raises:
            pypdfium2.PdfiumError: PDFium does not load the page.
        """
        raw = c.FPDF_LoadPage(self.document, number - 1)
        if not raw:
            raise pypdfium2.PdfiumError("page not loaded")
        try:
            raw_text = c.FPDFText_LoadPage(raw)
            if not raw_text:
                raise pypdfium2.PdfiumError("text of the page not loaded")
            try:
                yield PdfiumPage(raw, raw_text)
            finally:
                c.FPDFText_ClosePage(raw_text)
        finally:
            c.FPDF_ClosePage(raw)

    def image(self, number: int, *, dpi: float, pixels_max: int, grey: bool) -> PageImage:
        """Return page `number` as displayed, at a lower resolution if it has too many pixels."""
        page = self.document[number - 1]
        try:
            width, height = page.get_size()
            scale = dpi / _POINTS_PER_INCH
            # One row and one column more, because PDFium rounds up.
            pixels = (width * scale + 1) * (height * scale + 1)
            if pixels > pixels_max:
                scale *= (pixels_max / pixels) ** 0.5
            bitmap = page.render(scale=scale, grayscale=grey, rev_byteorder=True)
            try:
                return _image(bitmap, dpi=scale * _POINTS_PER_INCH)
            finally:
                bitmap.close()
        finally:
            page.close()


def _image(bitmap: Any, *, dpi: float) -> PageImage:  # noqa: ANN401  # pypdfium2 is untyped
    channels = bitmap.n_channels
    pixels = bytes(bitmap.buffer)
    row = bitmap.width * channels
    if bitmap.stride != row:
        pixels = b"".join(
            pixels[start : start + row]
            for start in range(0, bitmap.height * bitmap.stride, bitmap.stride)
        )
    return PageImage(
        width=bitmap.width, height=bitmap.height, channels=channels, pixels=pixels, dpi=dpi
    )
