"""pypdf's view of a PDF: the second opinion on the text of a page, and the structure."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import fontTools.cffLib  # noqa: F401  # else pypdf imports it in every child: 90 ms
import pypdf
from pypdf import PageObject, PasswordType, PdfReader
from pypdf.errors import LimitReachedError

from pipeline.ingest.errors import DocumentEncrypted
from pipeline.ingest.extractors.extractor import OutlineItem, Structure
from pipeline.ingest.extractors.pdf.structure import structure_of
from pipeline.ingest.sandbox.limits import ReadingLimits

S = TypeVar("S")
T = TypeVar("T")

VERSION: Final = str(pypdf.__version__)

_PAGES_BETWEEN_RELEASES: Final = 50
_QUARTER_TURN: Final = 90
# Beyond any real page (ISO 32000-2, annex C: 14,400 units), and within a `real` of PostgreSQL.
_SIDE_MAX: Final = 1e9


@dataclass(frozen=True, kw_only=True)
class PypdfText:
    """The text of a page as pypdf yields it.

    Attributes:
        raw: before it is cleaned.
        is_incomplete: whether forms (parts that a page shows) beyond a limit are left out.
        has_image: whether the page shows an image.
        width: as displayed, in 1/72 inch.
        height: as displayed, in 1/72 inch.
    """

    raw: str
    is_incomplete: bool
    has_image: bool
    width: float | None
    height: float | None


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


class PypdfDocument:
    """An open PDF; every method may raise anything that pypdf raises."""

    def __init__(self, file: Path, *, limits: ReadingLimits, password: str | None) -> None:
        """Open a file.

        Raises:
            DocumentEncrypted: the file needs a password, or another one.
        """
        self._log = ParserLog.install()
        pypdf.overwrite_configuration(
            # Four entries per page: a document with too many pages still opens.
            page_tree_maximum_entries=4 * limits.pages,
            jbig2dec_binary=None,  # text needs no images: never start a program to decode one
        )
        self._stream = file.open("rb")  # a path would be read into memory as a whole
        try:
            self._reader = self._opened(password)
        except BaseException:
            self._stream.close()
            raise

    def _opened(self, password: str | None) -> PdfReader:
        try:
            reader = PdfReader(self._stream)
        except NotImplementedError as error:
            if "filter" in str(error):  # of a stream; pypdf has one class for both
                raise
            raise DocumentEncrypted from error
        # A PDF with only an owner's password opens with the empty password.
        if reader.is_encrypted and all(
            reader.decrypt(each) == PasswordType.NOT_DECRYPTED for each in {"", password or ""}
        ):
            raise DocumentEncrypted
        return reader

    @property
    def page_count(self) -> int:
        """The number of pages; reads the page tree, which the structure does not need."""
        return len(self._reader.pages)

    @property
    def warnings(self) -> int:
        return self._log.warnings

    def close(self) -> None:
        self._stream.close()

    def page(self, number: int) -> PypdfText:
        """Return the text of page `number`, from 1."""
        self._log.skipped_forms = False
        page = self._reader.pages[number - 1]
        raw = page.extract_text()
        width, height = self._attempt(_size, page) or (None, None)
        if number % _PAGES_BETWEEN_RELEASES == 0:
            self.forget()
        return PypdfText(
            raw=raw,
            is_incomplete=self._log.skipped_forms,
            has_image=bool(not raw.strip() and self._attempt(_has_image, page)),
            width=width,
            height=height,
        )

    def content_is_damaged(self, number: int) -> bool:
        """Return whether what page `number` shows cannot be decoded, or only in part."""
        before = self._log.warnings
        try:
            self._reader.pages[number - 1].get_contents()
        except Exception:  # noqa: BLE001  # a damaged stream raises anything
            return True
        return self._log.warnings > before

    def forget(self) -> None:
        """Free the memory of the pages read so far; pypdf keeps every decoded stream."""
        self._reader.resolved_objects.clear()

    def structure(self, *, outline: Sequence[OutlineItem] | None) -> Structure:
        """Return the readable parts of the structure; the outline, unless it is known already."""
        return structure_of(self._reader, attempt=self._attempt, outline=outline)

    def _attempt(self, read: Callable[[S], T], subject: S) -> T | None:
        try:
            return read(subject)
        except Exception:  # noqa: BLE001  # a damaged title must not lose the text
            self._log.warnings += 1
            return None


def _has_image(page: PageObject) -> bool:
    """Return whether the page or a form that it shows has an image."""
    return next(iter(page.images.keys()), None) is not None


def _size(page: PageObject) -> tuple[float, float] | None:
    box = page.cropbox
    width, height = float(box.width) * page.user_unit, float(box.height) * page.user_unit
    if not (0 < width <= _SIDE_MAX and 0 < height <= _SIDE_MAX):  # also if one is no number
        return None
    turned = page.rotation // _QUARTER_TURN % 2
    return (height, width) if turned else (width, height)
