"""Reads documents with an extractor, in this process."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.ingest.extractors.extractor import ExtractedPage, Extractor, Structure
from pipeline.ingest.sandbox.limits import ReadingLimits
from tests.factories.reading_limits import READING_LIMITS


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """All that an extractor yields of a document."""

    page_count: int
    pages: list[ExtractedPage]
    structure: Structure
    warnings: int

    @property
    def text(self) -> str:
        """The text of the only page."""
        (page,) = self.pages
        return page.text


def extract(
    extractor: Extractor, file: Path, *, limits: ReadingLimits = READING_LIMITS
) -> Extracted:
    with extractor.open(file, limits=limits, password=None) as document:
        numbers = range(1, min(document.page_count, limits.pages) + 1)
        return Extracted(
            page_count=document.page_count,
            pages=[document.page(number) for number in numbers],
            structure=document.structure(),
            warnings=document.warnings,
        )
