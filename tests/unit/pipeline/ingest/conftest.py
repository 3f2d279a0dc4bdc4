from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from spacy.language import Language

from pipeline.ingest import enrich, reading
from pipeline.ingest.outcome import DocumentOpened, DocumentRead, PageReading
from pipeline.ingest.reading import DocumentReading
from pipeline.ingest.sandbox.limits import ReadingLimits

MIB = 1024 * 1024


class Reading(NamedTuple):
    opened: DocumentOpened
    pages: list[PageReading]
    summary: DocumentRead


class Reader:
    """Reads PDFs as the task does, but from bytes, and with limits a test can change."""

    def __init__(self, limits: ReadingLimits, *, language: Language, directory: Path) -> None:
        self._limits = limits
        self._language = language
        self._directory = directory

    def open(
        self, content: bytes, **changed: int | timedelta
    ) -> AbstractContextManager[DocumentReading]:
        path = self._directory / "document.pdf"
        path.write_bytes(content)
        limits = replace(self._limits, **changed)  # type: ignore[arg-type]  # mypy wants one type for all fields
        return reading.open_pdf(path, limits=limits, language=self._language)

    def read(self, content: bytes, **changed: int | timedelta) -> Reading:
        with self.open(content, **changed) as document:
            pages = list(document.pages())
            return Reading(document.opened, pages, document.summary)


@pytest.fixture(scope="session")
def english() -> Language:
    return enrich.load_language("blank:en")


@pytest.fixture
def limits() -> ReadingLimits:
    """Smaller than in production, so that what runs into them does so soon."""
    return ReadingLimits(
        timeout=timedelta(seconds=30),
        page_timeout=timedelta(seconds=15),
        memory_bytes=256 * MIB,
        file_bytes=64 * MIB,
        pages=100,
        text_bytes=4 * MIB,
        page_characters=200_000,
    )


@pytest.fixture
def reader(limits: ReadingLimits, english: Language, tmp_path: Path) -> Reader:
    return Reader(limits, language=english, directory=tmp_path)
