"""A reading goes on after the death of a child, from the page that killed it."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType

import pytest

from pipeline.ingest.errors import DocumentError, DocumentQuarantined
from pipeline.ingest.extractors import registry
from pipeline.ingest.extractors.registry import Format
from pipeline.ingest.frames import PageReading
from pipeline.ingest.reading import DocumentReading, Lane, SoFar
from schemas.outcomes import Outcome
from tests.integration.sandbox.conftest import Bench, NewChildren
from tests.integration.sandbox.scripted import MEDIA_TYPE

INTERACTIVE = Lane(cpu_share=timedelta(seconds=0.5), niceness=0)


@pytest.fixture(autouse=True)
def scripts_are_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Format(
        extractor="tests.integration.sandbox.scripted:ScriptExtractor",
        media_types=(MEDIA_TYPE,),
        suffixes=(),
    )
    monkeypatch.setattr(registry, "_BY_MEDIA_TYPE", MappingProxyType({MEDIA_TYPE: script}))


@pytest.fixture(autouse=True)
def no_child_is_left(reader: Bench, children: NewChildren) -> Iterator[None]:
    yield
    reader.reader.close()
    assert children() == []


class Scripts:
    """Reads scripts; keeps the pages, and the last state that a task would record."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.pages: list[PageReading] = []
        self.so_far = SoFar()

    def reading(
        self,
        *lines: str,
        lane: Lane | None = None,
        while_waiting: Callable[[], None] = lambda: None,
        limits: Mapping[str, int | timedelta] = MappingProxyType({}),
    ) -> DocumentReading:
        return self._bench.reading(
            "\n".join(lines).encode(),
            media_type=MEDIA_TYPE,
            lane=lane or Lane(cpu_share=None, niceness=0),
            done=len(self.pages),
            so_far=self.so_far,
            while_waiting=while_waiting,
            limits=self._bench.limits(**limits),
        )

    def read(
        self, *lines: str, lane: Lane | None = None, **limits: int | timedelta
    ) -> DocumentReading:
        reading = self.reading(*lines, lane=lane, limits=limits)
        for each in reading.run():
            self.so_far = reading.so_far
            if isinstance(each, PageReading):
                self.pages.append(each)
        return reading

    @property
    def outcomes(self) -> list[Outcome]:
        assert [page.number for page in self.pages] == list(range(1, len(self.pages) + 1))
        return [page.outcome for page in self.pages]


@pytest.fixture
def scripts(reader: Bench) -> Scripts:
    return Scripts(reader)


def test_the_other_engine_reads_a_page_that_crashes_the_first(scripts: Scripts) -> None:
    reading = scripts.read("one", "crash", "three")
    assert scripts.outcomes == [Outcome.COMPLETE] * 3
    assert [page.engine for page in scripts.pages] == ["script", "other script", "script"]
    assert scripts.pages[1].engine_reason
    assert reading.ending.page_count == 3
    assert not reading.ending.is_paused


def test_a_page_that_crashes_both_engines_fails_alone(scripts: Scripts) -> None:
    scripts.read("one", "always crash", "three")
    assert scripts.outcomes == [Outcome.COMPLETE, Outcome.CRASHED, Outcome.COMPLETE]
    assert scripts.so_far.deaths == 2


def test_the_last_page_may_crash_both_engines(scripts: Scripts) -> None:
    reading = scripts.read("one", "always crash")
    assert scripts.outcomes == [Outcome.COMPLETE, Outcome.CRASHED]
    assert reading.ending.read.cut is None


@pytest.mark.parametrize("moment", ["end", "close"])
def test_pages_beyond_a_limit_stay_missing_if_the_child_dies_after_the_last_page(
    moment: str, scripts: Scripts
) -> None:
    reading = scripts.read("one", "two", f"{moment}: always crash", pages=2)
    assert scripts.outcomes == [Outcome.COMPLETE] * 2
    assert reading.ending.page_count == 3
    assert reading.ending.read.cut is Outcome.LIMIT_PAGES


def test_a_page_that_no_engine_has_tried_is_not_called_crashed(scripts: Scripts) -> None:
    scripts.so_far = SoFar(other_engine_next=True)
    scripts.read("one", "two", "end: crash", deaths=5)
    assert scripts.outcomes == [Outcome.COMPLETE] * 3

    scripts.pages, scripts.so_far = [], SoFar(other_engine_next=True)
    scripts.read("one", "two", "end: always crash", deaths=5)
    assert scripts.outcomes == [Outcome.COMPLETE] * 3


def test_pages_that_are_read_stay_if_the_time_does_not_suffice_to_open_the_document_again(
    scripts: Scripts,
) -> None:
    scripts.read("one", "two")
    scripts.pages.pop()
    reading = scripts.read("open: spin", "two", page_timeout=timedelta(seconds=0.2))
    assert reading.ending.read.cut is Outcome.TIMEOUT_DOCUMENT
    assert len(scripts.pages) == 1


def test_a_document_that_kills_child_after_child_is_quarantined(scripts: Scripts) -> None:
    with pytest.raises(DocumentQuarantined):
        scripts.read("one", "always crash", "three", "crash", "five")
    assert len(scripts.pages) == 3


def test_deaths_are_counted_across_workers(scripts: Scripts) -> None:
    scripts.so_far = SoFar(deaths=2)
    with pytest.raises(DocumentQuarantined):
        scripts.read("crash")


def test_a_document_whose_opening_crashes_is_read_by_the_other_engine(scripts: Scripts) -> None:
    scripts.read("open: crash", "two")
    assert [page.engine for page in scripts.pages] == ["other script", "other script"]


def test_a_document_that_crashes_both_engines_when_it_opens_is_crashed(scripts: Scripts) -> None:
    with pytest.raises(DocumentError) as raised:
        scripts.read("open: always crash")
    assert raised.value.outcome is Outcome.CRASHED


def test_a_page_whose_child_is_killed_from_outside_is_read_by_the_same_engine(
    scripts: Scripts, children: NewChildren
) -> None:
    def kill() -> None:
        for child in children():
            os.kill(child.pid, signal.SIGKILL)

    reading = scripts.reading(*("page",) * 2_000, limits={"pages": 2_000})
    is_killed = False
    for each in reading.run():
        if isinstance(each, PageReading):
            scripts.pages.append(each)
        if len(scripts.pages) == 100 and not is_killed:
            kill()
            is_killed = True
    assert set(scripts.outcomes) == {Outcome.COMPLETE}
    assert len(scripts.pages) == 2_000
    assert {page.engine for page in scripts.pages} == {"script"}
    assert reading.so_far.deaths == 1


def test_a_slow_page_fails_alone(scripts: Scripts) -> None:
    scripts.read("one", "spin", "three", page_timeout=timedelta(seconds=0.2))
    assert scripts.outcomes == [Outcome.COMPLETE, Outcome.TIMEOUT_PAGE, Outcome.COMPLETE]


def test_a_page_in_an_endless_call_is_killed_and_fails_alone(scripts: Scripts) -> None:
    scripts.read("one", "compute", "three", page_timeout=timedelta(seconds=0.2))
    assert scripts.outcomes == [Outcome.COMPLETE, Outcome.TIMEOUT_PAGE, Outcome.COMPLETE]
    assert scripts.so_far.deaths == 0


def test_a_page_on_which_the_child_waits_for_ever_is_read_by_the_other_engine(
    scripts: Scripts,
) -> None:
    idle = timedelta(seconds=1)
    scripts.read("one", "hang", "three", idle=idle)
    assert scripts.outcomes == [Outcome.COMPLETE] * 3
    assert scripts.pages[1].engine == "other script"
    assert timedelta(seconds=scripts.so_far.seconds) >= idle


def test_a_page_that_needs_too_much_memory_fails_alone(scripts: Scripts) -> None:
    scripts.read("one", "exhaust", "three")
    assert scripts.outcomes == [Outcome.COMPLETE, Outcome.OUT_OF_MEMORY, Outcome.COMPLETE]


def test_a_reason_has_no_words_of_a_library(scripts: Scripts) -> None:
    scripts.read("fail")
    [page] = scripts.pages
    assert (page.outcome, page.reason) == (Outcome.CORRUPT, "The page is damaged.")


@pytest.mark.parametrize("slow", ["spin", "compute"])
def test_a_reading_pauses_when_its_share_is_used_up(slow: str, scripts: Scripts) -> None:
    reading = scripts.read("one", "two", slow, "four", lane=INTERACTIVE)
    assert reading.ending.is_paused
    assert scripts.outcomes == [Outcome.COMPLETE] * 2


def test_a_paused_reading_goes_on_where_it_stopped(scripts: Scripts) -> None:
    lines = ("one", "two", "spin", "four")
    paused = scripts.read(*lines, lane=INTERACTIVE)
    scripts.so_far = paused.so_far
    reading = scripts.read(*lines, page_timeout=timedelta(seconds=0.2))
    assert not reading.ending.is_paused
    assert scripts.outcomes == [
        Outcome.COMPLETE,
        Outcome.COMPLETE,
        Outcome.TIMEOUT_PAGE,
        Outcome.COMPLETE,
    ]


def test_a_document_that_takes_long_to_open_pauses_without_a_page_count(scripts: Scripts) -> None:
    ending = scripts.read("open: spin", lane=INTERACTIVE).ending
    assert (ending.is_paused, ending.page_count) == (True, None)


@pytest.mark.parametrize("slow", ["spin", "compute"])
def test_a_document_keeps_the_pages_that_its_time_sufficed_for(slow: str, scripts: Scripts) -> None:
    reading = scripts.read("one", slow, "three", timeout=timedelta(seconds=0.5))
    assert reading.ending.read.cut is Outcome.TIMEOUT_DOCUMENT
    assert reading.ending.page_count == 3
    assert scripts.outcomes == [Outcome.COMPLETE]


def test_the_time_of_earlier_workers_counts(scripts: Scripts) -> None:
    scripts.so_far = SoFar(seconds=1_000, page_count=3)
    assert scripts.read("one").ending.read.cut is Outcome.TIMEOUT_DOCUMENT


def test_what_a_page_costs_counts_before_it_is_read(scripts: Scripts) -> None:
    class WorkerDies(Exception):
        pass

    def die_later() -> None:
        if reading.so_far.seconds > 0.2:
            raise WorkerDies

    reading = scripts.reading("spin", while_waiting=die_later)
    with pytest.raises(WorkerDies):
        list(reading.run())


def test_a_reading_that_is_given_up_leaves_no_child(scripts: Scripts) -> None:
    def cancel() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(scripts.reading("one", "spin", while_waiting=cancel).run())
