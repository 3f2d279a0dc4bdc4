"""The messages from the child that reads a PDF to the worker that stores it."""

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from pipeline.enrich.annotations import Entity
from schemas.errors import ErrorCode


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


def encode(message: Message) -> bytes:
    return _ENCODER.encode(message)


def decode(frame: bytes) -> Message:
    message: Message = _DECODER.decode(frame)
    return message
