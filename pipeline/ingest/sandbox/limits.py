"""How much one PDF may take of the worker that reads it."""

from dataclasses import dataclass
from datetime import timedelta

from schemas.settings import IngestSettings

# A page beyond these is an attack or a mistake, not something to read: a dense
# printed page has 10,000 characters, and each passage and entity costs the worker
# a few hundred bytes while it waits to be written.
PAGE_CHARACTERS = 2_000_000
PAGE_PASSAGES = 20_000
PAGE_ENTITIES = 10_000

LONGEST_PAGE_TIMEOUT = timedelta(seconds=20)


@dataclass(frozen=True, kw_only=True)
class ReadingLimits:
    """Limits of one reading; what lies beyond is left out and flagged, or ends it with an error.

    Attributes:
        timeout: time the whole reading may keep its caller waiting.
        page_timeout: time one page may take; a slower page is kept as an error.
        memory_bytes: memory the reading process may add to what it inherits.
        file_bytes: largest file that is opened at all.
        pages: pages read; later ones are left out.
        text_bytes: text taken from the whole document, as UTF-8; the rest is left out.
        page_characters: text taken from one page; the rest is left out.
        page_passages: passages taken from one page.
        page_entities: entities taken from one page.
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

    @classmethod
    def from_settings(cls, settings: IngestSettings) -> "ReadingLimits":
        return cls(
            timeout=settings.pdf_timeout,
            # One slow page must leave time for the others.
            page_timeout=min(LONGEST_PAGE_TIMEOUT, settings.pdf_timeout / 4),
            memory_bytes=settings.pdf_memory_max,
            file_bytes=settings.pdf_file_max,
            pages=settings.pdf_pages_max,
            text_bytes=settings.pdf_text_max,
        )
