"""The search for tables goes on after a page that kills its child."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Protocol
from uuid import uuid4

import pytest

from pipeline.ingest.errors import DocumentCrashed, DocumentError
from pipeline.ingest.extractors import registry
from pipeline.ingest.extractors.registry import Format
from pipeline.ingest.frames import FindTables, Opening
from pipeline.ingest.tables_search import GIVEN_UP, NO_TIME, TablesSearch
from pipeline.ingest.whole_tables import UnsearchedPages
from schemas.ids import TenantId
from schemas.outcomes import Outcome
from tests.factories.reading_limits import READING_LIMITS
from tests.integration.sandbox.conftest import Bench, NewChildren
from tests.integration.sandbox.scripted import MEDIA_TYPE

DEATHS_MAX = 3


class Search(Protocol):
    """Looks at every page of a script."""

    def __call__(
        self,
        *lines: str,
        page_timeout: timedelta = ...,
        time_left: timedelta = ...,
        while_waiting: Callable[[], None] = ...,
    ) -> TablesSearch: ...


@pytest.fixture(autouse=True)
def scripts_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Format(
        extractor="tests.integration.sandbox.scripted:ScriptExtractor",
        media_types=(MEDIA_TYPE,),
        suffixes=(),
    )
    monkeypatch.setattr(registry, "_BY_MEDIA_TYPE", MappingProxyType({MEDIA_TYPE: script}))


@pytest.fixture
def search(reader: Bench, children: NewChildren, tmp_path: Path) -> Iterator[Search]:
    def start(
        *lines: str,
        page_timeout: timedelta = timedelta(seconds=20),
        time_left: timedelta = timedelta(seconds=60),
        while_waiting: Callable[[], None] = lambda: None,
    ) -> TablesSearch:
        path = tmp_path / "script"
        path.write_text("\n".join(lines))
        request = FindTables(
            opening=Opening(path=str(path), media_type=MEDIA_TYPE, limits=READING_LIMITS),
            page_timeout=page_timeout,
            time_left=time_left,
        )
        return TablesSearch(
            request,
            last_page=len(lines),
            reader=reader.reader,
            tenant_id=TenantId(uuid4()),
            niceness=0,
            deaths_max=DEATHS_MAX,
            while_waiting=while_waiting,
        )

    yield start
    reader.reader.close()
    assert children() == []


def seen(search: TablesSearch) -> list[tuple[int, Outcome]]:
    """Return number and outcome of each page, in the order of their arrival."""
    found: list[tuple[int, Outcome]] = []
    for result in search.run():
        if isinstance(result, UnsearchedPages):
            found += ((number, result.outcome) for number in range(result.first, result.last + 1))
        else:
            found.append((result.number, result.outcome))
    return found


@pytest.mark.parametrize(
    ("deed", "outcome"),
    [
        ("always crash", Outcome.CRASHED),
        ("exhaust", Outcome.OUT_OF_MEMORY),
        ("fail", Outcome.CORRUPT),
        ("spin", Outcome.TIMEOUT_PAGE),
    ],
)
def test_a_page_that_fails_is_left_out_and_the_next_one_is_searched(
    search: Search, deed: str, outcome: Outcome
) -> None:
    document = search("one", deed, "three", page_timeout=timedelta(seconds=1))

    assert seen(document) == [(1, Outcome.COMPLETE), (2, outcome), (3, Outcome.COMPLETE)]


def test_a_last_page_that_fails_ends_the_search(search: Search) -> None:
    assert seen(search("one", "always crash")) == [(1, Outcome.COMPLETE), (2, Outcome.CRASHED)]


def test_pages_after_three_deaths_in_a_row_are_left_out(search: Search) -> None:
    *_, last = search("one", *["always crash"] * DEATHS_MAX, "five", "six").run()

    assert last == UnsearchedPages(first=5, last=6, outcome=Outcome.CRASHED, reason=GIVEN_UP)


def test_pages_without_a_turn_are_left_out(search: Search) -> None:
    *_, last = search("one", "spin", "three", time_left=timedelta(seconds=0.5)).run()

    assert isinstance(last, UnsearchedPages)
    assert (last.last, last.outcome, last.reason) == (3, Outcome.TIMEOUT_DOCUMENT, NO_TIME)


def test_a_document_that_does_not_open_is_an_error(search: Search) -> None:
    with pytest.raises(DocumentError):
        seen(search("open: fail", "two"))


def test_a_child_that_is_killed_from_outside_is_no_fault_of_its_page(
    search: Search, children: NewChildren
) -> None:
    def kill() -> None:
        os.kill(children()[0].pid, signal.SIGKILL)

    with pytest.raises(DocumentCrashed) as crash:
        seen(search("compute", "two", while_waiting=kill))

    assert crash.value.retryable
