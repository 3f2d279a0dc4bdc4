"""The requests of a worker to the child that reads a document, and the messages of its answer."""

from datetime import timedelta
from typing import Final

import msgspec

from pipeline.enrich.annotations import Entity
from pipeline.ingest.extractors.extractor import ExtractedPage, Structure
from pipeline.ingest.extractors.layout import LayoutLimits, PageLayout
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome
from schemas.settings import OcrEngineName


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """How the child opens a document.

    Attributes:
        path: the file.
        media_type: selects the extractor.
        limits: the limits of the whole document.
        password: opens an encrypted document.
        use_other_engine: open the document with the other engine of the extractor, because the
            default engine killed a child.
    """

    path: str
    media_type: str
    limits: ReadingLimits
    password: str | None = None
    use_other_engine: bool = False


class ReadPages(msgspec.Struct, frozen=True, kw_only=True, tag="read_pages"):
    """Read the text of a document, page after page, and enrich it.

    Attributes:
        opening: the document.
        first_page: the first page to read, from 1; the earlier pages are read already.
        last_page: the last page to read; None for the last one of the document.
        text_bytes_before: text of the earlier pages, which counts towards the limit.
        enricher_state: what the enricher keeps of the earlier pages.
        time_left: of the CPU time for the document; the answer ends before.
        cpu_share: CPU time after which the reading pauses; None to read on.
    """

    opening: Opening
    first_page: int = 1
    last_page: int | None = None
    text_bytes_before: int = 0
    enricher_state: bytes = b""
    time_left: timedelta
    cpu_share: timedelta | None = None


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag="describe"):
    """Read what describes a document: page count, structure, language, a picture of page one.

    Attributes:
        opening: the document.
        thumbnail_side: longest side of the picture in pixels.
        part_timeout: CPU time for each part of the answer.
    """

    opening: Opening
    thumbnail_side: int
    part_timeout: timedelta


class Render(msgspec.Struct, frozen=True, kw_only=True, tag="render"):
    """Make the image of a page, or of a part of it.

    Attributes:
        opening: the document.
        page: number of the page, from 1.
        box: left, top, right and bottom of the part, in 1/72 inch of the page as displayed; None
            for the whole page.
        side: longest side of the image in pixels.
        part_timeout: CPU time to open the document, and to draw the page.
    """

    opening: Opening
    page: int
    box: tuple[int, int, int, int] | None = None
    side: int
    part_timeout: timedelta


class Recognize(msgspec.Struct, frozen=True, kw_only=True, tag="recognize"):
    """Recognise the text of page images (OCR), and enrich it.

    Attributes:
        opening: the document; its extractor renders the pages.
        pages: numbers of the pages, from 1, in order.
        engine: what recognises them.
        data: directory of Tesseract's language data.
        languages: names of the language data for the first page.
        is_language_known: whether they are those of the document's other pages.
        dpi: resolution of the images.
        pixels_max: most pixels of one image; a larger page is rendered at a lower resolution.
        page_timeout: CPU time for one page.
        confidence_min: mean confidence of a page, 0 to 1, below which its text is discarded.
        time_left: of the CPU time for the document.
    """

    opening: Opening
    pages: tuple[int, ...]
    engine: OcrEngineName
    data: str
    languages: tuple[str, ...]
    is_language_known: bool
    dpi: float
    pixels_max: int
    page_timeout: timedelta
    confidence_min: float
    time_left: timedelta


class FindTables(msgspec.Struct, frozen=True, kw_only=True, tag="find_tables"):
    """Find the tables and figures of a document, page after page.

    Attributes:
        opening: the document.
        first_page: the first page to look at, from 1.
        last_page: the last one; None for the last page of the document that is read.
        limits: of each page.
        page_timeout: CPU time for one page.
        time_left: of the CPU time for the document; the answer ends before.
    """

    opening: Opening
    first_page: int = 1
    last_page: int | None = None
    limits: LayoutLimits = LayoutLimits()
    page_timeout: timedelta
    time_left: timedelta


Request = ReadPages | Describe | Render | Recognize | FindTables


class DocumentOpened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The document is open; `page_count` includes the pages beyond the limit."""

    page_count: int


class PageReading(ExtractedPage, frozen=True, kw_only=True, tag="page"):
    """One page, with its sentences and entities, or the reason why it could not be read.

    Attributes:
        sentences: start and end of each sentence, in order.
        entities: in order, not overlapping.
        language: code of ISO 639-1; None if it is not certain.
        language_confidence: 0 to 1.
    """

    sentences: tuple[tuple[int, int], ...] = ()
    entities: tuple[Entity, ...] = ()
    language: str | None = None
    language_confidence: float | None = None


class PagesSoFar(msgspec.Struct, frozen=True, kw_only=True, tag="so_far"):
    """What the next reading needs to go on after the pages so far; sent now and then.

    Attributes:
        enricher_state: what the enricher keeps of them.
    """

    enricher_state: bytes


class DocumentRead(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    """The reading has ended; every page that was read is sent.

    Attributes:
        cut: why the pages after the last one, or the rest of its text, are missing; None if every
            page is sent.
        cut_reason: a sentence for clients about `cut`.
        language: language of most of the text of all pages; None if there is none.
        language_confidence: 0 to 1; None without a language.
        key_phrases: the most telling phrases of all pages, best first.
        warnings: defects that the parser repaired or skipped.
    """

    cut: Outcome | None = None
    cut_reason: str = ""
    language: str | None = None
    language_confidence: float | None = None
    key_phrases: tuple[str, ...] = ()
    warnings: int = 0


class ReadingPaused(msgspec.Struct, frozen=True, kw_only=True, tag="paused"):
    """The CPU share is used up; the pages after the last one are not read yet."""


class ReadingFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The document could not be opened; the worker raises a `DocumentError`."""

    outcome: Outcome
    reason: str = ""


class StructureRead(msgspec.Struct, frozen=True, kw_only=True, tag="structure"):
    """Part of the answer to `Describe`."""

    structure: Structure


class LanguageFound(msgspec.Struct, frozen=True, kw_only=True, tag="language"):
    """Part of the answer to `Describe`: the language of the first pages."""

    language: str | None
    confidence: float | None


class ThumbnailDrawn(msgspec.Struct, frozen=True, kw_only=True, tag="thumbnail"):
    """Part of the answer to `Describe`: page one as a PNG."""

    png: bytes


class PageRendered(msgspec.Struct, frozen=True, kw_only=True, tag="rendered"):
    """The answer to `Render`.

    Attributes:
        png: the image; None if the page cannot be rendered.
        outcome: why not.
        reason: a sentence for clients about it.
    """

    png: bytes | None = None
    outcome: Outcome = Outcome.COMPLETE
    reason: str = ""


class LayoutFound(PageLayout, frozen=True, kw_only=True, tag="layout"):
    """Part of the answer to `FindTables`: one page, or the reason why tables of it are missing."""


class TablesFound(msgspec.Struct, frozen=True, kw_only=True, tag="tables_found"):
    """The end of the answer to `FindTables`; every page that was looked at is sent.

    Attributes:
        cut: why the pages after the last one are missing; None if every page is sent.
    """

    cut: Outcome | None = None


Message = (
    DocumentOpened
    | PageReading
    | PagesSoFar
    | DocumentRead
    | ReadingPaused
    | ReadingFailed
    | StructureRead
    | LanguageFound
    | ThumbnailDrawn
    | PageRendered
    | LayoutFound
    | TablesFound
)

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Message)
_REQUEST_DECODER: Final = msgspec.msgpack.Decoder(Request)


def encode(message: Message | Request) -> bytes:
    return _ENCODER.encode(message)


def decode(frame: bytes) -> Message:
    message: Message = _DECODER.decode(frame)
    return message


def decode_request(content: bytes) -> Request:
    request: Request = _REQUEST_DECODER.decode(content)
    return request
