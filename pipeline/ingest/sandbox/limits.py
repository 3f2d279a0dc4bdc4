"""Limits of the reading of one document."""

from dataclasses import dataclass
from datetime import timedelta

from schemas.outcomes import Outcome
from schemas.settings import MIB, IngestSettings, PdfEngine

# A page beyond these is an attack or a mistake: a dense printed page has 10,000
# characters. Each sentence and entity costs the worker a few hundred bytes until it is written.
PAGE_CHARACTERS = 2_000_000
PAGE_SENTENCES = 20_000
PAGE_ENTITIES = 10_000

# A book of 1,000 pages has 10 MB of HTML, or 20 MB of unpacked DOCX; a tree of a million elements
# takes 300 MB of memory.
MARKUP_BYTES = 64 * MIB
MARKUP_ELEMENTS = 1_000_000
ARCHIVE_BYTES = 128 * MIB

# A page of A0 at 200 dpi has 62 million; each takes up to 4 bytes.
IMAGE_PIXELS = 100_000_000

OUTLINE_ENTRIES = 5_000

DEATHS = 3

IDLE_MAX = timedelta(minutes=1)
"""Even the nice child of a machine with a hundred busy processes gets the CPU every few seconds."""

PAGE_TIMEOUT_MAX = timedelta(seconds=20)

SHARE_SECONDS = 1
SHARE_BYTES_PER_SECOND = 100_000


@dataclass(frozen=True, kw_only=True)
class ReadingLimits:
    """Limits of one reading; content beyond a limit is left out and flagged, or fails the reading.

    Attributes:
        timeout: CPU time for the whole reading.
        page_timeout: CPU time for one page; a slower page is recorded as an error.
        memory_bytes: memory of the child on top of what it inherits.
        file_bytes: size of the largest file that is opened.
        pages: pages read; later pages are left out.
        text_bytes: text of the whole document, as UTF-8; the rest is left out.
        page_characters: text of one page; the rest is left out.
        page_sentences: sentences of one page.
        page_entities: entities of one page.
        pdf_engine: which engine reads the text of PDFs.
        markup_bytes: HTML that is parsed; the rest is left out.
        markup_elements: elements and other uses of `<` in an HTML file.
        archive_bytes: unpacked size of the parts of a DOCX that are read.
        image_pixels: pixels of an image that is decoded.
        outline_entries: entries of the outline that are kept.
        deaths: children that the document may kill before it is quarantined.
        idle: longest time that a child may use no CPU time; see `AnswerLimits`.
    """

    timeout: timedelta
    page_timeout: timedelta
    memory_bytes: int
    file_bytes: int
    pages: int
    text_bytes: int
    page_characters: int = PAGE_CHARACTERS
    page_sentences: int = PAGE_SENTENCES
    page_entities: int = PAGE_ENTITIES
    pdf_engine: PdfEngine = PdfEngine.AUTO
    markup_bytes: int = MARKUP_BYTES
    markup_elements: int = MARKUP_ELEMENTS
    archive_bytes: int = ARCHIVE_BYTES
    image_pixels: int = IMAGE_PIXELS
    outline_entries: int = OUTLINE_ENTRIES
    deaths: int = DEATHS
    idle: timedelta = IDLE_MAX

    @classmethod
    def from_settings(cls, settings: IngestSettings) -> "ReadingLimits":
        return cls(
            timeout=settings.pdf_timeout,
            # One slow page must leave time for the others.
            page_timeout=min(PAGE_TIMEOUT_MAX, settings.pdf_timeout / 4),
            memory_bytes=int(settings.pdf_memory_max),  # msgspec encodes no subclass of int
            file_bytes=int(settings.pdf_file_max),
            pages=settings.pdf_pages_max,
            text_bytes=int(settings.pdf_text_max),
            pdf_engine=settings.pdf_engine,
            deaths=settings.quarantine_after,
        )

    def cut_reason(self, cut: Outcome) -> str:
        """Return a sentence about the limit that ended the reading of a document."""
        match cut:
            case Outcome.LIMIT_PAGES:
                return f"Only the first {self.pages} pages are read."
            case Outcome.LIMIT_TEXT:
                return f"Only the first {self.text_bytes} bytes of text are kept."
            case Outcome.TIMEOUT_DOCUMENT:
                seconds = self.timeout.total_seconds()
                return f"The pages that could not be read within {seconds:g} seconds of CPU time are missing."
            case _:
                raise ValueError(f"{cut} does not cut a document")


def cpu_share(size_bytes: int, *, longest: timedelta) -> timedelta:
    """Return how long a document may keep a reader of the interactive lane, in CPU time.

    The share grows with the file: ordinary files need far less, and many small hostile files
    would otherwise keep all readers busy.
    """
    seconds = SHARE_SECONDS + size_bytes / SHARE_BYTES_PER_SECOND
    return min(longest, timedelta(seconds=seconds))
