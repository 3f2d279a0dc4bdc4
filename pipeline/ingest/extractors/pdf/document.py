"""PDFs: which engine reads a page, and what the page comes to.

PDFium reads first: it is many times as fast, and keeps the spaces and the order of the lines. Where
its text has a sign of being misread, pypdf reads the page too, and the better text is taken. What
one engine cannot open or load, the other one tries.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final, TypeVar

from pipeline.ingest.errors import DocumentCorrupt, DocumentEmpty
from pipeline.ingest.extractors.extractor import (
    ExtractedPage,
    Extractor,
    OpenDocument,
    PageImage,
    Structure,
)
from pipeline.ingest.extractors.layout import LayoutLimits, PageLayout
from pipeline.ingest.extractors.pdf import opinions, pdfium_structure
from pipeline.ingest.extractors.pdf.additions import placed
from pipeline.ingest.extractors.pdf.failures import clearest
from pipeline.ingest.extractors.pdf.pdfium import PdfiumDocument
from pipeline.ingest.extractors.pdf.pypdf_document import PypdfDocument
from pipeline.ingest.extractors.pdf.readings import PageReading, by_pdfium, by_pypdf
from pipeline.ingest.extractors.pdf.running_headers import RunningHeaders
from pipeline.ingest.extractors.pdf.tables.page_layout import layout_of
from pipeline.ingest.sandbox.fork import TimeLimitReached, time_limit
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome
from schemas.settings import PdfEngine

T = TypeVar("T")

# A document whose every page has a sign is not read twice to its end if that never helps.
_VAIN_OPINIONS_MAX: Final = 10
_AFTER_ERROR: Final = "the default engine cannot read it"
_CHOSEN: Final = "chosen by the operator"


class PdfDocument(OpenDocument):
    """An open PDF."""

    def __init__(
        self, file: Path, *, limits: ReadingLimits, password: str | None, engine: PdfEngine
    ) -> None:
        """Open a file.

        Raises:
            DocumentEncrypted, DocumentEmpty, DocumentCorrupt, DocumentLimitExceeded: no engine opens it.
        """
        self._file = file
        self._limits = limits
        self._password = password
        self._engine = engine
        self._pdfium: PdfiumDocument | None = None
        self._pypdf: PypdfDocument | None = None
        self._vain_opinions = 0
        failures: list[Exception] = []
        page_count: int | None = None
        if engine is not PdfEngine.PYPDF:
            page_count = _attempt(lambda: self._open_pdfium().page_count, failures)
        self._is_read_by_pdfium = page_count is not None
        if page_count is None and engine is not PdfEngine.PDFIUM:
            page_count = _attempt(lambda: self._open_pypdf().page_count, failures)
        if not page_count:
            self.close()
            if page_count is None:
                raise clearest(failures) from failures[0]
            raise DocumentEmpty
        self.page_count = page_count
        self._pages = RunningHeaders(self._read, page_count=self.page_count)

    def close(self) -> None:
        for document in (self._pdfium, self._pypdf):
            if document is not None:
                document.close()

    def page(self, number: int) -> ExtractedPage:
        """Return page `number`, from 1.

        Raises:
            DocumentEncrypted, DocumentCorrupt, DocumentLimitExceeded: no engine reads it.
        """
        return self._pages.page(number)

    def _read(self, number: int) -> ExtractedPage:
        failures: list[Exception] = []
        if self._is_read_by_pdfium:
            first = _attempt(
                lambda: by_pdfium(self._open_pdfium(), number, limits=self._limits), failures
            )
            if first is not None:
                return self._with_second_opinion(number, first)
        if self._engine is not PdfEngine.PDFIUM:
            only = _attempt(lambda: self._by_pypdf(number), failures)
            if only is not None:
                reason = _CHOSEN if self._engine is PdfEngine.PYPDF else _AFTER_ERROR
                return self._extracted(number, only, reason=reason)
        raise clearest(failures) from failures[0]

    def structure(self) -> Structure:
        failures: list[Exception] = []
        pdfium = self._open_pdfium().document if self._is_read_by_pdfium else None
        document = _attempt(self._open_pypdf, failures)
        if document is not None:
            # PDFium reads an outline of 90,000 entries in a second, pypdf in twelve.
            outline = pdfium_structure.outline_of(pdfium) if pdfium else None
            return document.structure(outline=outline)
        if pdfium is None:
            raise clearest(failures) from failures[0]
        self.warnings += 1
        return pdfium_structure.structure_of(pdfium)

    def image(self, number: int, *, dpi: float, pixels_max: int, grey: bool) -> PageImage | None:
        return self._open_pdfium().image(number, dpi=dpi, pixels_max=pixels_max, grey=grey)

    def layout(self, number: int, *, limits: LayoutLimits) -> PageLayout:
        with self._open_pdfium().page(number) as page:
            return layout_of(page, number, limits=limits)

    def forget(self) -> None:
        self._pages.forget()
        if self._pypdf is not None:
            self._pypdf.forget()

    def _open_pdfium(self) -> PdfiumDocument:
        if self._pdfium is None:
            self._pdfium = PdfiumDocument(self._file, password=self._password)
        return self._pdfium

    def _open_pypdf(self) -> PypdfDocument:
        if self._pypdf is None:
            self._pypdf = PypdfDocument(self._file, limits=self._limits, password=self._password)
            self.warnings += self._pypdf.warnings
        return self._pypdf

    def _by_pypdf(self, number: int) -> PageReading:
        document = self._open_pypdf()
        if document.page_count != self.page_count:
            # It leaves out a damaged page, so that the number is that of another page.
            raise DocumentCorrupt
        before = document.warnings
        try:
            return by_pypdf(document, number, limits=self._limits)
        finally:
            self.warnings += document.warnings - before

    def _with_second_opinion(self, number: int, first: PageReading) -> ExtractedPage:
        """Return PDFium's reading, or pypdf's if a sign asks for it and it is better."""
        if first.shown.objects == 0 and self._is_damaged(number):
            raise DocumentCorrupt  # PDFium shows an empty page, without an error
        sign = opinions.sign_of(first.opinion, first.shown)
        second = None if sign is None else self._second_opinion(number)
        if sign is None or second is None:
            return self._extracted(number, first)
        # PDFium says what has no map; it has the form values, and looked at what the page shows.
        opinion = second.opinion.with_doubts_of(first.opinion)
        if opinions.is_better(opinion, first.opinion):
            second = replace(second, opinion=opinion, additions=first.additions, shown=first.shown)
            return self._extracted(number, second, reason=sign.value)
        self._vain_opinions += 1
        if not second.opinion.may_be_cut:  # as long as the first one, so neither is cut
            first = replace(first, opinion=replace(first.opinion, may_be_cut=False))
        return self._extracted(number, first)

    def _is_damaged(self, number: int) -> bool:
        """Return whether pypdf finds that the content of an empty page is damaged."""
        if self._engine is not PdfEngine.AUTO or self._vain_opinions >= _VAIN_OPINIONS_MAX:
            return False
        try:
            with time_limit(self._limits.page_timeout / 4):
                document = self._open_pypdf()
                return document.page_count == self.page_count and document.content_is_damaged(
                    number
                )
        except (Exception, TimeLimitReached):  # noqa: BLE001  # PDFium's reading stands
            self._vain_opinions += 1
            return False
        finally:
            if self._pypdf is not None:
                self._pypdf.forget()  # it keeps the decoded content of each page

    def _second_opinion(self, number: int) -> PageReading | None:
        """Return pypdf's reading; None if it fails or takes too long, or has rarely helped."""
        if self._engine is not PdfEngine.AUTO or self._vain_opinions >= _VAIN_OPINIONS_MAX:
            return None
        try:
            with time_limit(self._limits.page_timeout / 4):
                return self._by_pypdf(number)
        except (Exception, TimeLimitReached):  # noqa: BLE001  # PDFium's reading stands
            if self._pypdf is not None:
                self._pypdf.forget()
            self._vain_opinions += 1
            self.warnings += 1
            return None

    def _extracted(self, number: int, reading: PageReading, *, reason: str = "") -> ExtractedPage:
        signs = reading.opinion.signs
        outcome, sentence = opinions.outcome_of(signs, reading.shown)
        content = reading.text
        if signs.is_garbage:
            content = replace(content, text="", lines=(), spans=())
        content = placed(content, reading.additions)
        if outcome is Outcome.NO_TEXT and content.text:
            outcome, sentence = Outcome.COMPLETE, ""
        if outcome is Outcome.COMPLETE:
            outcome, sentence = opinions.limit_reached(
                reading.opinion, characters_max=self._limits.page_characters
            )
        return ExtractedPage(
            number=number,
            outcome=outcome,
            reason=sentence,
            text=content.text,
            lines=content.lines,
            spans=content.spans,
            width_points=reading.width,
            height_points=reading.height,
            engine=reading.engine,
            engine_version=reading.engine_version,
            engine_reason=reason,
        )


def _attempt(read: Callable[[], T], failures: list[Exception]) -> T | None:
    """Return what `read` returns, or None after an error, which is added to `failures`.

    A `MemoryError` passes: the caller frees memory and tries again.
    """
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # on a damaged file an engine raises anything
        failures.append(error)
        return None


class PdfExtractor(Extractor):
    """Opens PDFs."""

    name: ClassVar[str] = "pdf"
    media_types: ClassVar[frozenset[str]] = frozenset({"application/pdf"})

    def __init__(self, *, engine: PdfEngine | None = None) -> None:
        """`engine` stands above the one of the settings."""
        self._engine = engine

    @contextmanager
    def open(
        self, file: Path, *, limits: ReadingLimits, password: str | None
    ) -> Iterator[OpenDocument]:
        engine = self._engine or limits.pdf_engine
        document = PdfDocument(file, limits=limits, password=password, engine=engine)
        try:
            yield document
        finally:
            document.close()

    def other(self) -> Extractor:
        """Return pypdf alone: it has no native code that ends the process."""
        return PdfExtractor(engine=PdfEngine.PYPDF)
