"""What reading a PDF gives: an opening, pages, a closing; or an error named for what happened.

The same values travel as frames from the process that reads to the one that stores.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.errors import DomainError, ErrorCode

SIGKILL: Final = 9


class Truncation(StrEnum):
    """A limit that made a reading leave something out."""

    PAGES = "pages"
    TEXT = "text"
    PAGE_TEXT = "page_text"
    PAGE_FORMS = "page_forms"
    PAGE_PASSAGES = "page_passages"
    PAGE_ENTITIES = "page_entities"


class Passage(msgspec.Struct, frozen=True, array_like=True):
    """A sentence: where it stands in its page's text.

    Attributes:
        ordinal: its place on the page, from 0.
        start: offset of its first character.
        end: offset behind its last character.
    """

    ordinal: int
    start: int
    end: int


class Entity(msgspec.Struct, frozen=True, array_like=True):
    """A name, date, amount or address found on a page.

    Attributes:
        label: what it is, such as `EMAIL`; the language model's own names.
        text: as it stands on the page, with white space collapsed.
        normal: form in which mentions of the same thing agree.
        start: offset of its first character in the page's text.
        end: offset behind its last character.
    """

    label: str
    text: str
    normal: str
    start: int
    end: int


class DocumentMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The PDF's own information dictionary, cleaned and cut to sane lengths.

    `msgspec.to_builtins()` of it is JSON. Dates without a time zone stay without.
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
    """The PDF opens.

    Attributes:
        page_count: pages the document has, also those beyond the limit.
        metadata: what the document says of itself.
        language: language its text is read as, such as `en`; not detected.
        encrypted: it is encrypted, and opened without a password.
    """

    page_count: int
    metadata: DocumentMetadata
    language: str
    encrypted: bool


class PageReading(msgspec.Struct, frozen=True, kw_only=True, tag="page"):
    """One page, or why it could not be read.

    Attributes:
        number: from 1.
        text: free of NUL, lone surrogates and carriage returns.
        error_code: why the page, or its passages and entities, are missing.
        error_reason: the parser's own words for it, cut short.
        width_points: width as displayed, in 1/72 inch.
        height_points: height as displayed, in 1/72 inch.
        passages: its sentences, in order.
        entities: in order; never overlapping.
        truncated: limits that cut this page short.
    """

    number: int
    text: str = ""
    error_code: ErrorCode | None = None
    error_reason: str = ""
    width_points: float | None = None
    height_points: float | None = None
    passages: tuple[Passage, ...] = ()
    entities: tuple[Entity, ...] = ()
    truncated: tuple[Truncation, ...] = ()


class DocumentRead(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    """All pages were delivered.

    Attributes:
        pages_read: pages delivered, good and bad.
        pages_failed: those with an `error_code`.
        characters: length of all their text.
        passages: number of all their passages.
        entities: number of all their entities.
        truncated: limits that cut the document or any page short.
        parser_warnings: oddities the parser repaired or skipped.
    """

    pages_read: int
    pages_failed: int
    characters: int
    passages: int
    entities: int
    truncated: tuple[Truncation, ...]
    parser_warnings: int


class ReadingFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The reading ended without a result.

    Attributes:
        code: what happened.
        reason: the parser's own words, cut short; empty if it had none.
    """

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


class PdfEmpty(DomainError):
    """There is nothing in the file: no bytes, or no pages."""

    code = ErrorCode.PDF_EMPTY

    def __init__(self) -> None:
        super().__init__("the PDF is empty")


class PdfCorrupt(DomainError):
    """The file is not a PDF, or is too damaged to give a single page."""

    code = ErrorCode.PDF_CORRUPT

    def __init__(self, *, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the PDF cannot be read: {reason}" if reason else "the PDF cannot be read"
        )


class PdfEncrypted(DomainError):
    """The PDF needs a password, or uses an encryption that is not supported."""

    code = ErrorCode.PDF_ENCRYPTED

    def __init__(self) -> None:
        super().__init__("the PDF is encrypted and does not open without a password")


class PdfLimitExceeded(DomainError):
    """Reading the PDF would take more than is allowed."""

    code = ErrorCode.PDF_LIMIT_EXCEEDED

    def __init__(self, *, limit: str) -> None:
        self.limit = limit
        super().__init__(f"the PDF exceeds a limit: {limit}")


class PdfTimeout(DomainError):
    """Reading the PDF took longer than is allowed."""

    code = ErrorCode.PDF_TIMEOUT

    def __init__(self, *, allowed: timedelta) -> None:
        self.allowed = allowed
        super().__init__(f"the PDF could not be read within {allowed.total_seconds():g} s")


class PdfOutOfMemory(DomainError):
    """Reading the PDF took more memory than is allowed."""

    code = ErrorCode.PDF_OUT_OF_MEMORY

    def __init__(self, *, allowed_bytes: int) -> None:
        self.allowed_bytes = allowed_bytes
        super().__init__(f"the PDF could not be read within {allowed_bytes} bytes of memory")


class PdfCrashed(DomainError):
    """The process that read the PDF died.

    A SIGKILL comes from outside (an operator, or the kernel short of memory), so
    that one may not happen again; any other end is the document's own doing.
    """

    code = ErrorCode.PDF_CRASHED

    def __init__(self, *, signal_number: int | None, exit_status: int | None) -> None:
        self.signal_number = signal_number
        self.exit_status = exit_status
        self.retryable = signal_number == SIGKILL
        ending = (
            f"by signal {signal_number}" if signal_number else f"with exit status {exit_status}"
        )
        super().__init__(f"the process reading the PDF ended {ending}")


def error_of(failed: ReadingFailed, *, limits: ReadingLimits) -> DomainError:
    """Return the error that a failed reading is raised as."""
    match failed.code:
        case ErrorCode.PDF_EMPTY:
            return PdfEmpty()
        case ErrorCode.PDF_ENCRYPTED:
            return PdfEncrypted()
        case ErrorCode.PDF_LIMIT_EXCEEDED:
            return PdfLimitExceeded(limit=failed.reason)
        case ErrorCode.PDF_TIMEOUT:
            return PdfTimeout(allowed=limits.page_timeout)
        case ErrorCode.PDF_OUT_OF_MEMORY:
            return PdfOutOfMemory(allowed_bytes=limits.memory_bytes)
        case _:
            return PdfCorrupt(reason=failed.reason)
