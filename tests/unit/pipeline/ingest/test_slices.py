"""A reading that takes longer than one delivery may is written and left to the next one."""

from collections.abc import Generator, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pipeline.ingest.document_time import SliceOver
from pipeline.ingest.frames import PageReading
from pipeline.ingest.reading import SoFar
from pipeline.ingest.task import _write_all_but_the_last

if TYPE_CHECKING:
    from pipeline.ingest.batches import PageBatches
    from pipeline.ingest.document_time import Slice
    from pipeline.ingest.reading import DocumentReading


class Reading:
    """Reads three pages; `so_far` is recorded after the second."""

    def __init__(self) -> None:
        self.so_far = SoFar(page_count=3)
        self.is_closed = False

    def run(self) -> Generator[PageReading | SoFar]:
        try:
            yield from self._steps()
        finally:
            self.is_closed = True

    def _steps(self) -> Iterator[PageReading | SoFar]:
        yield PageReading(number=1)
        yield PageReading(number=2)
        self.so_far = SoFar(page_count=3, enricher_state=b"of two pages")
        yield self.so_far
        yield PageReading(number=3)


class Batches:
    def __init__(self) -> None:
        self.so_far = SoFar()
        self.total: int | None = None
        self.added: list[int] = []
        self.written: list[int] = []

    def add(self, page: PageReading) -> None:
        self.added.append(page.number)

    def beat(self) -> None:
        pass

    def write(self) -> None:
        self.written = list(self.added)


def write(reading: Reading, batches: Batches, *, is_over: bool) -> None:
    _write_all_but_the_last(
        cast("DocumentReading", reading),
        cast("PageBatches", batches),
        pages_max=100,
        slice_=cast("Slice", SimpleNamespace(is_over=is_over)),
    )


def test_a_slice_that_is_over_ends_after_pages_whose_state_is_known() -> None:
    reading, batches = Reading(), Batches()
    with pytest.raises(SliceOver):
        write(reading, batches, is_over=True)
    assert batches.written == [1, 2]
    assert batches.so_far.enricher_state == b"of two pages"
    assert reading.is_closed


def test_a_document_is_read_to_its_end_within_a_slice() -> None:
    batches = Batches()
    write(Reading(), batches, is_over=False)
    assert batches.added == [1, 2, 3]
    assert batches.written == []
