from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psutil
import pytest

from pipeline.enrich.enricher import Enricher
from pipeline.ingest import child, reading
from pipeline.ingest.frames import DocumentOpened, DocumentRead, PageReading, ReadPages
from pipeline.ingest.reading import DocumentReading
from pipeline.ingest.sandbox.limits import ReadingLimits
from pipeline.ingest.sandbox.reader import Reader
from schemas.ids import TenantId
from schemas.policy.media_types import PDF
from tests.factories.reading_limits import READING_LIMITS


class NewChildren:
    """Returns the children that this process got since; the session's servers are older."""

    def __init__(self) -> None:
        self._before = set(psutil.Process().children())

    def __call__(self) -> list[psutil.Process]:
        return [each for each in psutil.Process().children() if each not in self._before]


class Reading(NamedTuple):
    opened: DocumentOpened
    pages: list[PageReading]
    summary: DocumentRead


class Bench:
    """Reads PDFs as the task does, but from bytes and with limits that a test may change."""

    def __init__(self, limits: ReadingLimits, *, enricher: Enricher, directory: Path) -> None:
        self.reader = Reader(partial(child.serve, enricher=enricher), documents_max=50)
        self._limits = limits
        self._directory = directory
        self._tenant_id = TenantId(uuid4())

    def open(
        self, content: bytes, **changed: int | timedelta
    ) -> AbstractContextManager[DocumentReading]:
        path = self._directory / "document.pdf"
        path.write_bytes(content)
        limits = replace(self._limits, **changed)  # type: ignore[arg-type]  # mypy wants one type for all fields
        return reading.open_document(
            ReadPages(path=str(path), media_type=PDF, limits=limits),
            reader=self.reader,
            tenant_id=self._tenant_id,
        )

    def read(self, content: bytes, **changed: int | timedelta) -> Reading:
        with self.open(content, **changed) as document:
            pages = list(document.pages())
            return Reading(document.opened, pages, document.summary)


@pytest.fixture
def children() -> NewChildren:
    return NewChildren()


@pytest.fixture(scope="session")
def english() -> Enricher:
    return Enricher("blank:en")


@pytest.fixture
def limits() -> ReadingLimits:
    return READING_LIMITS


@pytest.fixture
def reader(english: Enricher, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(READING_LIMITS, enricher=english, directory=tmp_path)
    yield bench
    bench.reader.close()
