"""Pages and metadata of one PDF, by pypdf; runs only in the child that may die of it."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO, Final, TypeVar

import fontTools.cffLib  # noqa: F401  # imported by pypdf when first needed: 90 ms in every child
import pypdf
import pypdf.filters
from pypdf import PageObject, PasswordType, PdfReader
from pypdf.errors import EmptyFileError, FileNotDecryptedError, LimitReachedError

from pipeline.ingest import text
from pipeline.ingest.outcome import DocumentMetadata, Truncation
from pipeline.ingest.sandbox.fork import TimeLimitReached
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.errors import ErrorCode

T = TypeVar("T")

_MB: Final = 1_000_000
_METADATA_LONGEST: Final = 1_000
_REASON_LONGEST: Final = 200
_PAGES_BETWEEN_RELEASES: Final = 50
_QUARTER_TURN: Final = 90

# The first class that fits decides. Whatever else a parser raises on a damaged file
# (it is asked to believe the file, so: anything) means the file is damaged.
_CODES: Final[tuple[tuple[type[BaseException], ErrorCode], ...]] = (
    (EmptyFileError, ErrorCode.PDF_EMPTY),
    (FileNotDecryptedError, ErrorCode.PDF_ENCRYPTED),
    (LimitReachedError, ErrorCode.PDF_LIMIT_EXCEEDED),
    (RecursionError, ErrorCode.PDF_LIMIT_EXCEEDED),
    (MemoryError, ErrorCode.PDF_OUT_OF_MEMORY),
    (TimeLimitReached, ErrorCode.PDF_TIMEOUT),
    (BaseException, ErrorCode.PDF_CORRUPT),
)


class PasswordNeeded(FileNotDecryptedError):
    """The PDF does not open with the empty password."""


class EncryptionNotSupported(FileNotDecryptedError):
    """The PDF is encrypted in a way pypdf does not know."""


class NoPages(EmptyFileError):
    """The PDF is one, but has no pages."""


@dataclass(frozen=True, kw_only=True)
class ExtractedPage:
    """What a page holds; sizes as displayed, in 1/72 inch."""

    text: str
    width_points: float | None
    height_points: float | None
    truncated: frozenset[Truncation]


class ParserLog(logging.Handler):
    """Counts what the parsers would log: a single PDF can write thousands of lines."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings = 0
        self.skipped_forms = False

    @classmethod
    def install(cls) -> "ParserLog":
        """Replace the parsers' log output in this process."""
        counter = cls()
        for name in ("pypdf", "fontTools"):
            logger = logging.getLogger(name)
            logger.handlers = [counter]
            logger.propagate = False
            logger.setLevel(logging.WARNING)
        return counter

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings += 1
        # pypdf leaves a form out with a warning where everything else is an exception.
        values = record.args if isinstance(record.args, dict) else {}
        if "form XObject invocations" in str(record.msg) or isinstance(
            values.get("exception"), LimitReachedError
        ):
            self.skipped_forms = True


class Document:
    """An open PDF.

    Raises, from anywhere in it: whatever pypdf raises; `code_of` names it.
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
            raise EncryptionNotSupported(str(error)) from error
        self.encrypted = self._reader.is_encrypted
        # A PDF with only an owner's password opens with the empty one.
        if self.encrypted and self._reader.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise PasswordNeeded
        self.page_count = len(self._reader.pages)
        if self.page_count == 0:
            raise NoPages

    @property
    def parser_warnings(self) -> int:
        return self._log.warnings

    def metadata(self) -> DocumentMetadata:
        """Return what can be read of the information dictionary; a damaged field counts as a warning."""
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
        """Give back the memory of what was read; pypdf keeps every decoded stream."""
        self._reader.resolved_objects.clear()

    def _line(self, read: Callable[[], object]) -> str | None:
        value = self._attempt(read)
        return text.clean_line(value, longest=_METADATA_LONGEST) if isinstance(value, str) else None

    def _attempt(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except Exception:  # noqa: BLE001  # a title of the wrong type is no reason to lose the text
            self._log.warnings += 1
            return None


def code_of(error: BaseException) -> ErrorCode:
    """Name what an error means for the document or the page."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def reason_of(error: BaseException) -> str:
    """Return the parser's own words, short and on one line."""
    words = text.clean_line(str(error), longest=_REASON_LONGEST)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _tighten(limits: ReadingLimits) -> None:
    """Lower what pypdf allows a single stream, array or page to a fraction of its defaults.

    The defaults let a file of 10 KB keep a core busy for minutes. Ordinary documents
    stay far below these; a page beyond them becomes a page error.
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
        # Four entries a page: a document over the limit of pages still opens.
        page_tree_maximum_entries=4 * limits.pages,
        jbig2dec_binary=None,  # text needs no images; start no program for one
    )


def _date(value: datetime | None) -> datetime | None:
    """Return a date with a time zone as UTC; the year 1 east of Greenwich has none."""
    return value.astimezone(UTC) if value and value.tzinfo else value


def _size(page: PageObject) -> tuple[float, float] | None:
    box = page.cropbox
    width, height = float(box.width) * page.user_unit, float(box.height) * page.user_unit
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
        return None
    turned = page.rotation // _QUARTER_TURN % 2
    return (height, width) if turned else (width, height)
