"""Pages and metadata of one PDF, by pypdf; runs only in the sandbox child."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import BinaryIO, Final, TypeVar

import fontTools.cffLib  # noqa: F401  # else pypdf imports it in every child: 90 ms
import pypdf
import pypdf.filters
from pypdf import PageObject, PasswordType, PdfReader
from pypdf.errors import EmptyFileError, FileNotDecryptedError, LimitReachedError

from pipeline.ingest import text
from pipeline.ingest.errors import (
    DocumentCorrupt,
    DocumentEmpty,
    DocumentEncrypted,
    DocumentError,
    DocumentLimitExceeded,
    DocumentOutOfMemory,
    DocumentTimeout,
)
from pipeline.ingest.extractors.extractor import DocumentMetadata
from pipeline.ingest.sandbox.fork import TimeLimitReached
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome

T = TypeVar("T")

_MB: Final = 1_000_000
_METADATA_MAX: Final = 1_000
_PAGES_BETWEEN_RELEASES: Final = 50
_QUARTER_TURN: Final = 90


class Truncation(StrEnum):
    """A limit that cut the document or a page short."""

    PAGES = "pages"
    TEXT = "text"
    PAGE_TEXT = "page_text"
    PAGE_FORMS = "page_forms"
    PAGE_PASSAGES = "page_passages"
    PAGE_ENTITIES = "page_entities"


@dataclass(frozen=True, kw_only=True)
class ExtractedPage:
    """The content of a page; sizes as displayed, in 1/72 inch."""

    text: str
    width_points: float | None
    height_points: float | None
    truncated: frozenset[Truncation]


class ParserLog(logging.Handler):
    """Counts the parsers' log lines instead of writing them: one PDF can cause thousands."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings = 0
        self.skipped_forms = False

    @classmethod
    def install(cls) -> "ParserLog":
        """Replace the log handlers of the parsers in this process."""
        counter = cls()
        for name in ("pypdf", "fontTools"):
            logger = logging.getLogger(name)
            logger.handlers = [counter]
            logger.propagate = False
            logger.setLevel(logging.WARNING)
        return counter

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings += 1
        # pypdf skips a form with a warning; every other limit is an exception.
        values = record.args if isinstance(record.args, dict) else {}
        if "form XObject invocations" in str(record.msg) or isinstance(
            values.get("exception"), LimitReachedError
        ):
            self.skipped_forms = True


class Document:
    """An open PDF.

    Every method may raise anything that pypdf raises; `error_of` classifies it.
    """

    def __init__(self, file: BinaryIO, *, limits: ReadingLimits) -> None:
        self._limits = limits
        self._log = ParserLog.install()
        _tighten(limits)
        try:
            self._reader = PdfReader(file)
        except NotImplementedError as error:
            if "filter" in str(error):  # of a stream; pypdf has one class for both
                raise
            raise DocumentEncrypted from error
        # A PDF with only an owner's password opens with the empty password.
        if self._reader.is_encrypted and self._reader.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise DocumentEncrypted
        self.page_count = len(self._reader.pages)
        if self.page_count == 0:
            raise DocumentEmpty

    @property
    def parser_warnings(self) -> int:
        return self._log.warnings

    def metadata(self) -> DocumentMetadata:
        """Return the readable fields of the information dictionary; the others are warnings."""
        information = self._attempt(lambda: self._reader.metadata)
        if information is None:
            return DocumentMetadata()
        return DocumentMetadata(
            title=self._line(lambda: information.title),
            author=self._line(lambda: information.author),
            subject=self._line(lambda: information.subject),
            keywords=self._line(lambda: information.keywords),
            creator=self._line(lambda: information.creator),
            producer=self._line(lambda: information.producer),
            created=self._attempt(lambda: _date(information.creation_date)),
            modified=self._attempt(lambda: _date(information.modification_date)),
        )

    def page(self, number: int) -> ExtractedPage:
        """Return page `number`, counted from 1."""
        self._log.skipped_forms = False
        page = self._reader.pages[number - 1]
        raw = page.extract_text()
        content = text.clean(raw[: self._limits.page_characters])
        if number % _PAGES_BETWEEN_RELEASES == 0:
            self.forget()
        truncated = {
            Truncation.PAGE_TEXT: len(raw) > self._limits.page_characters,
            Truncation.PAGE_FORMS: self._log.skipped_forms,
        }
        width, height = self._attempt(lambda: _size(page)) or (None, None)
        return ExtractedPage(
            text=content,
            width_points=width,
            height_points=height,
            truncated=frozenset(limit for limit, reached in truncated.items() if reached),
        )

    def forget(self) -> None:
        """Free the memory of the pages read so far; pypdf keeps every decoded stream."""
        self._reader.resolved_objects.clear()

    def _line(self, read: Callable[[], object]) -> str | None:
        value = self._attempt(read)
        return text.clean_line(value, longest=_METADATA_MAX) if isinstance(value, str) else None

    def _attempt(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except Exception:  # noqa: BLE001  # a damaged title must not lose the text
            self._log.warnings += 1
            return None


def error_of(error: BaseException) -> DocumentError:  # noqa: PLR0911  # one line per kind of error
    """Classify an exception of the parser, for the document or for one page."""
    match error:
        case DocumentError():
            return error
        case EmptyFileError():
            return DocumentEmpty()
        case FileNotDecryptedError():
            return DocumentEncrypted()
        case MemoryError():
            return DocumentOutOfMemory()
        case TimeLimitReached():
            return DocumentTimeout(outcome=Outcome.TIMEOUT_PAGE)
        case LimitReachedError() | RecursionError():
            return DocumentLimitExceeded()
        case _:
            # On a damaged file a parser may raise any exception.
            return DocumentCorrupt()


def _tighten(limits: ReadingLimits) -> None:
    """Lower pypdf's limits on a single stream, array or page to a fraction of its defaults.

    With the defaults a file of 10 KB can keep a core busy for minutes. Ordinary
    documents stay far below these limits; a page beyond them becomes a page error.
    """
    pypdf.overwrite_configuration(
        maximum_declared_stream_length=20 * _MB,
        array_based_stream_maximum_output_length=20 * _MB,
        zlib_maximum_output_length=20 * _MB,
        lzw_maximum_output_length=20 * _MB,
        run_length_maximum_output_length=20 * _MB,
        brotli_maximum_output_length=20 * _MB,
        jbig2_maximum_output_length=20 * _MB,
        stream_decoding_work_maximum_length=80 * _MB,
        stream_parsing_work_maximum_count=300_000,
        xform_maximum_invocations_per_extraction=1_000,
        # Four entries per page: a document with too many pages still opens.
        page_tree_maximum_entries=4 * limits.pages,
        jbig2dec_binary=None,  # text needs no images: never start a program to decode one
    )


def _date(value: datetime | None) -> datetime | None:
    """Return a date in UTC if it has a time zone; raises for year 1 east of Greenwich."""
    return value.astimezone(UTC) if value and value.tzinfo else value


def _size(page: PageObject) -> tuple[float, float] | None:
    box = page.cropbox
    width, height = float(box.width) * page.user_unit, float(box.height) * page.user_unit
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
        return None
    turned = page.rotation // _QUARTER_TURN % 2
    return (height, width) if turned else (width, height)
