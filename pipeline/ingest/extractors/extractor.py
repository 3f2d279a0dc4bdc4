"""What an extractor is: a class that opens files of some media types and yields their content.

An extractor runs only in the sandbox child. It may raise anything: the child classifies what it
raises, and records an error of one page for that page alone.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import msgspec

from pipeline.ingest.extractors.layout import LayoutLimits, PageLayout
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome
from schemas.spans import SpanKind as SpanKind  # noqa: PLC0414  # extractors import it from here


class Span(msgspec.Struct, frozen=True, array_like=True):
    """A marked part of a page's text: offsets of its first character and after its last."""

    kind: SpanKind
    start: int
    end: int


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A line of a page's text, and its box on the page.

    Attributes:
        start: offset of its first character in the text of the page.
        end: offset after its last character.
        left: in 1/72 inch from the left edge of the page as displayed, rounded.
        top: in 1/72 inch from the upper edge of the page as displayed, rounded.
        right: as `left`.
        bottom: as `top`.
    """

    start: int
    end: int
    left: int
    top: int
    right: int
    bottom: int


class ExtractedPage(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one page.

    Attributes:
        number: from 1.
        outcome: `COMPLETE`, `NO_TEXT`, `NEEDS_OCR`, or the limit that cut the text short; what
            the extractor raises becomes the outcome of a page that could not be read.
        reason: a sentence for clients about an outcome that is not `COMPLETE`.
        text: free of NUL, lone surrogates, carriage returns and text that is garbage.
        lines: lines with a known place, in the order of the text.
        spans: marked parts of the text, in order.
        width_points: width as displayed, in 1/72 inch.
        height_points: height as displayed, in 1/72 inch.
        engine: what read the page, such as `pdfium`.
        engine_version: its version.
        engine_reason: why this engine and not the default one; empty for the default.
        confidence: mean confidence of OCR, 0 to 1; None for text that was not recognised.
    """

    number: int
    outcome: Outcome = Outcome.COMPLETE
    reason: str = ""
    text: str = ""
    lines: tuple[Line, ...] = ()
    spans: tuple[Span, ...] = ()
    width_points: float | None = None
    height_points: float | None = None
    engine: str = ""
    engine_version: str = ""
    engine_reason: str = ""
    confidence: float | None = None


class DocumentMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a document says about itself, cleaned and shortened.

    A date without a time zone stays without one. `extra` has further fields of the format, such
    as those of XMP.
    """

    title: str | None = None
    author: str | None = None
    subject: str | None = None
    keywords: str | None = None
    creator: str | None = None
    producer: str | None = None
    created: datetime | None = None
    modified: datetime | None = None
    extra: dict[str, str] = {}


class OutlineItem(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the outline; `level` from 0, `page` from 1 or None if it leads nowhere."""

    title: str
    level: int
    page: int | None = None


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file inside the document; its bytes are not read."""

    name: str
    size_bytes: int | None = None
    media_type: str | None = None
    description: str | None = None


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a document beside its text; bounded lists, with a flag where entries are left out."""

    metadata: DocumentMetadata = DocumentMetadata()
    outline: tuple[OutlineItem, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    page_labels: tuple[str, ...] = ()
    is_cut: bool = False


class PageImage(msgspec.Struct, frozen=True, kw_only=True):
    """A page as pixels, 8 bit grey (1 byte per pixel) or RGB (3), rows from the top, no padding."""

    width: int
    height: int
    channels: int
    pixels: bytes
    dpi: float


class OpenDocument(ABC):
    """An open file."""

    page_count: int
    warnings: int = 0
    """Defects that were repaired or skipped so far."""

    @abstractmethod
    def page(self, number: int) -> ExtractedPage:
        """Return page `number`, from 1; pages are asked for in order, some may be left out."""

    @abstractmethod
    def structure(self) -> Structure:
        """Return metadata, outline and attachments; slower than opening, and not needed for pages."""

    def image(self, number: int, *, dpi: float, pixels_max: int, grey: bool) -> PageImage | None:
        """Return page `number` as displayed, at a lower resolution if it has too many pixels.

        None if pages of this format have no image.
        """
        del number, dpi, pixels_max, grey
        return None

    def layout(self, number: int, *, limits: LayoutLimits) -> PageLayout:
        """Return the tables and figures of page `number`, from 1; none in a format without them."""
        del limits
        return PageLayout(number=number)

    def forget(self) -> None:
        """Free the memory of the pages read so far, if the format keeps any."""
        return


class Extractor(ABC):
    """Opens files of some media types."""

    name: ClassVar[str]
    """Short, for logs and `engine`."""
    media_types: ClassVar[frozenset[str]]

    @abstractmethod
    def open(
        self, file: Path, *, limits: ReadingLimits, password: str | None
    ) -> AbstractContextManager[OpenDocument]:
        """Open a file.

        Raises:
            DocumentEncrypted: the file needs a password, or another one.
            Exception: the file is damaged; the child calls it corrupt.
        """

    def other(self) -> "Extractor | None":
        """Return an extractor of the same media types by another engine; None if there is none.

        It reads the page on which this one killed its process.
        """
        return None
