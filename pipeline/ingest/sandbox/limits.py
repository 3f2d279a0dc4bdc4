"""Limits of the reading of one PDF."""

from dataclasses import dataclass
from datetime import timedelta

from schemas.settings import IngestSettings, PdfEngine

# A page beyond these is an attack or a mistake: a dense printed page has 10,000
# characters. Each passage and entity costs the worker a few hundred bytes until it is written.
PAGE_CHARACTERS = 2_000_000
PAGE_PASSAGES = 20_000
PAGE_ENTITIES = 10_000

PAGE_TIMEOUT_MAX = timedelta(seconds=20)


@dataclass(frozen=True, kw_only=True)
class ReadingLimits:
    """Limits of one reading; content beyond a limit is left out and flagged, or fails the reading.

    Attributes:
        timeout: time that the worker waits for the whole reading.
        page_timeout: time for one page; a slower page is recorded as an error.
        memory_bytes: memory of the child on top of what it inherits.
        file_bytes: size of the largest file that is opened.
        pages: pages read; later pages are left out.
        text_bytes: text of the whole document, as UTF-8; the rest is left out.
        page_characters: text of one page; the rest is left out.
        page_passages: passages of one page.
        page_entities: entities of one page.
        pdf_engine: which engine reads the text of PDFs.
    """

    timeout: timedelta
    page_timeout: timedelta
    memory_bytes: int
    file_bytes: int
    pages: int
    text_bytes: int
    page_characters: int = PAGE_CHARACTERS
    page_passages: int = PAGE_PASSAGES
    page_entities: int = PAGE_ENTITIES
    pdf_engine: PdfEngine = PdfEngine.AUTO

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
        )
