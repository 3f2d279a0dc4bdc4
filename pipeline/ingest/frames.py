"""The requests of a worker to its reader child, and the messages that answer them."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from pipeline.enrich.annotations import Entity
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.errors import ErrorCode


class ReadPages(msgspec.Struct, frozen=True, kw_only=True, tag="read_pages"):
    """Read the text of a document, page after page, and enrich it.

    Attributes:
        path: the file; the child opens it.
        media_type: selects the extractor.
        limits: the limits of the whole document.
        password: opens an encrypted document.
        first_page: the first page to read, from 1; earlier pages are read already.
        text_bytes_before: text of the earlier pages, which counts towards the limit.
        enricher_state: what the enricher keeps of the earlier pages.
        use_other_engine: read the first page with the other engine, because the default engine
            killed a child on it.
        cpu_share: CPU time after which the reading pauses; None for a reading to the end.
    """

    path: str
    media_type: str
    limits: ReadingLimits
    password: str | None = None
    first_page: int = 1
    text_bytes_before: int = 0
    enricher_state: bytes = b""
    use_other_engine: bool = False
    cpu_share: timedelta | None = None


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag="describe"):
    """Read what describes a document: page count, structure, language, a picture of page one.

    Attributes:
        path: the file; the child opens it.
        media_type: selects the extractor.
        limits: the limits of the document.
        password: opens an encrypted document.
        thumbnail_side: longest side of the picture in pixels.
    """

    path: str
    media_type: str
    limits: ReadingLimits
    password: str | None = None
    thumbnail_side: int = 400


class Recognize(msgspec.Struct, frozen=True, kw_only=True, tag="recognize"):
    """Recognise the text of page images (OCR), and enrich it.

    Attributes:
        path: the file; the child opens it.
        media_type: selects the extractor, which renders the pages.
        limits: the limits of the document.
        pages: numbers of the pages, from 1, in order.
        languages: codes of the languages to recognise, as tesseract names them.
        dpi: resolution of the images.
        pixels_max: most pixels of one image; a larger page is rendered at a lower resolution.
        password: opens an encrypted document.
    """

    path: str
    media_type: str
    limits: ReadingLimits
    pages: tuple[int, ...]
    languages: tuple[str, ...]
    dpi: float
    pixels_max: int
    password: str | None = None


Request = ReadPages | Describe | Recognize


class Truncation(StrEnum):
    """A limit that cut the document or a page short."""

    PAGES = "pages"
    TEXT = "text"
    PAGE_TEXT = "page_text"
    PAGE_FORMS = "page_forms"
    PAGE_PASSAGES = "page_passages"
    PAGE_ENTITIES = "page_entities"


class Passage(msgspec.Struct, frozen=True, array_like=True):
    """A sentence and its place in the text of its page.

    Attributes:
        ordinal: its place on the page, from 0.
        start: offset of its first character.
        end: offset after its last character.
    """

    ordinal: int
    start: int
    end: int


class DocumentMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The PDF's information dictionary, cleaned and shortened.

    `msgspec.to_builtins()` turns it into JSON. A date without a time zone stays without one.
    """

    title: str | None = None
    author: str | None = None
    subject: str | None = None
    keywords: str | None = None
    creator: str | None = None
    producer: str | None = None
    created: datetime | None = None
    modified: datetime | None = None


class DocumentOpened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The PDF is open.

    Attributes:
        page_count: pages of the document, including those beyond the limit.
        metadata: its information dictionary.
    """

    page_count: int
    metadata: DocumentMetadata


class PageReading(msgspec.Struct, frozen=True, kw_only=True, tag="page"):
    """One page, or the reason why it could not be read.

    Attributes:
        number: from 1.
        text: free of NUL, lone surrogates and carriage returns.
        error_code: why the page, or its passages and entities, are missing.
        error_reason: details of the error, mostly the parser's message, shortened.
        language: ISO 639-1 code; None if the page has too little text or no clear language.
        language_confidence: from 0 to 1; None without a language.
        width_points: width as displayed, in 1/72 inch.
        height_points: height as displayed, in 1/72 inch.
        passages: its sentences, in order.
        entities: in order, not overlapping.
        truncated: limits that cut this page short.
    """

    number: int
    text: str = ""
    error_code: ErrorCode | None = None
    error_reason: str = ""
    width_points: float | None = None
    height_points: float | None = None
    language: str | None = None
    language_confidence: float | None = None
    passages: tuple[Passage, ...] = ()
    entities: tuple[Entity, ...] = ()
    truncated: tuple[Truncation, ...] = ()


class DocumentRead(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    """All pages were sent.

    Attributes:
        pages_read: pages sent, including those that failed.
        pages_failed: pages with an `error_code`.
        passages: passages on all pages.
        entities: entities on all pages.
        truncated: limits that cut the document or a page short.
        parser_warnings: defects that the parser repaired or skipped.
        language: language of most of the text; None if there is none.
        language_confidence: from 0 to 1; None without a language.
        key_phrases: the most telling phrases, best first.
    """

    pages_read: int
    pages_failed: int
    passages: int
    entities: int
    truncated: tuple[Truncation, ...]
    parser_warnings: int
    language: str | None = None
    language_confidence: float | None = None
    key_phrases: tuple[str, ...] = ()


class ReadingFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The PDF could not be read; `errors.BY_CODE` maps the code to the error to raise."""

    code: ErrorCode
    reason: str = ""


Message = DocumentOpened | PageReading | DocumentRead | ReadingFailed

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Message)
_REQUEST_DECODER: Final = msgspec.msgpack.Decoder(Request)


def encode(message: Message | Request) -> bytes:
    return _ENCODER.encode(message)


def decode_request(content: bytes) -> Request:
    request: Request = _REQUEST_DECODER.decode(content)
    return request


def decode(frame: bytes) -> Message:
    message: Message = _DECODER.decode(frame)
    return message
