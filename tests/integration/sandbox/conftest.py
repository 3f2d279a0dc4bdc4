from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psutil
import pytest

from pipeline.enrich.enricher import Enricher
from pipeline.ingest import child
from pipeline.ingest.frames import Opening, PageReading
from pipeline.ingest.reading import DocumentReading, Ending, Lane, SoFar
from pipeline.ingest.sandbox.limits import ReadingLimits
from pipeline.ingest.sandbox.reader import Reader
from schemas.ids import TenantId
from schemas.policy.media_types import PDF
from schemas.settings import PdfEngine
from tests.factories.reading_limits import READING_LIMITS

BATCH_LANE = Lane(cpu_share=None, niceness=0)


class NewChildren:
    """Returns the children that this process got since; the session's servers are older."""

    def __init__(self) -> None:
        self._before = set(psutil.Process().children())

    def __call__(self) -> list[psutil.Process]:
        return [each for each in psutil.Process().children() if each not in self._before]


class Reading(NamedTuple):
    pages: list[PageReading]
    ending: Ending


class Bench:
    """Reads PDFs as the task does, but from bytes and with limits that a test may change."""

    def __init__(self, limits: ReadingLimits, *, enricher: Enricher, directory: Path) -> None:
        self.reader = Reader(partial(child.serve, enricher=enricher), documents_max=50)
        self._limits = limits
        self._directory = directory
        self._tenant_id = TenantId(uuid4())

    def reading(
        self,
        content: bytes,
        *,
        media_type: str = PDF,
        lane: Lane = BATCH_LANE,
        done: int = 0,
        so_far: SoFar | None = None,
        while_waiting: Callable[[], None] = lambda: None,
        limits: ReadingLimits | None = None,
    ) -> DocumentReading:
        path = self._directory / "document"
        path.write_bytes(content)
        return DocumentReading(
            Opening(path=str(path), media_type=media_type, limits=limits or self._limits),
            reader=self.reader,
            tenant_id=self._tenant_id,
            lane=lane,
            done=done,
            so_far=so_far or SoFar(),
            while_waiting=while_waiting,
        )

    def limits(self, **changed: int | timedelta | PdfEngine) -> ReadingLimits:
        return replace(self._limits, **changed)  # type: ignore[arg-type]  # mypy wants one type for all fields

    def read(self, content: bytes, **changed: int | timedelta | PdfEngine) -> Reading:
        reading = self.reading(content, limits=self.limits(**changed))
        pages = [each for each in reading.run() if isinstance(each, PageReading)]
        return Reading(pages, reading.ending)


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
