"""Pages that exhaust the search for tables: each ends, and the next document is searched."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from reportlab.lib.colors import Color
from reportlab.pdfgen.canvas import Canvas

from pipeline.ingest.extractors.layout import PageLayout
from pipeline.ingest.frames import FindTables, Opening
from pipeline.ingest.tables_search import TablesSearch
from pipeline.ingest.whole_tables import UnsearchedPages
from schemas.ids import TenantId
from schemas.outcomes import Outcome
from tests.factories import pdfs
from tests.factories.reading_limits import READING_LIMITS
from tests.factories.table_pdfs import PRICES, Draw, pdf, table
from tests.integration.sandbox.conftest import Bench, NewChildren

PAGE_TIMEOUT = timedelta(seconds=2)

Search = Callable[[bytes], list[PageLayout | UnsearchedPages]]


@pytest.fixture
def search(reader: Bench, children: NewChildren, tmp_path: Path) -> Iterator[Search]:
    def run(content: bytes) -> list[PageLayout | UnsearchedPages]:
        path = tmp_path / "hostile.pdf"
        path.write_bytes(content)
        opening = Opening(path=str(path), media_type="application/pdf", limits=READING_LIMITS)
        request = FindTables(
            opening=opening, page_timeout=PAGE_TIMEOUT, time_left=timedelta(seconds=30)
        )
        return list(
            TablesSearch(
                request,
                last_page=1,
                reader=reader.reader,
                tenant_id=TenantId(uuid4()),
                niceness=0,
                deaths_max=3,
                while_waiting=lambda: None,
            ).run()
        )

    yield run
    [page] = run(pdf([table(PRICES)]))
    assert isinstance(page, PageLayout)
    assert len(page.tables) == 1
    reader.reader.close()
    assert children() == []


def grid(lines: int) -> Draw:
    def draw(canvas: Canvas) -> None:
        places = [50 + 500 * number / lines for number in range(lines + 1)]
        canvas.grid(places, places)

    return draw


def boxes(count: int) -> Draw:
    def draw(canvas: Canvas) -> None:
        for number in range(count):
            canvas.rect(50 + number % 40 * 13, 50 + number // 40 * 8, 10, 6)

    return draw


def areas(count: int) -> Draw:
    def draw(canvas: Canvas) -> None:
        for number in range(count):
            canvas.setFillColor(Color(0.5, 0.5, number % 200 / 250))
            canvas.rect(50 + number % 60 * 8, 50 + number // 60 * 8, 8, 8, stroke=0, fill=1)

    return draw


def curves(count: int) -> Draw:
    def draw(canvas: Canvas) -> None:
        for number in range(count):
            canvas.bezier(50 + number % 500, 100, 100, 300, 200, 400, 400, 500 + number % 100)

    return draw


def numbers(count: int) -> Draw:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 3)
        for number in range(count):
            canvas.drawString(30 + number % 60 * 9, 800 - number // 60 * 4, str(number % 97))

    return draw


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(partial(pdf, [grid(190)]), id="a grid of 36,100 cells"),
        pytest.param(partial(pdf, [grid(1_300), numbers(500)]), id="a grid of 1.7 million cells"),
        pytest.param(partial(pdf, [boxes(2_000), numbers(5_000)]), id="boxes and numbers"),
        pytest.param(partial(pdf, [areas(6_000)]), id="coloured areas"),
        pytest.param(partial(pdf, [curves(5_000)]), id="curves"),
        pytest.param(partial(pdfs.form_fan_out, width=12, depth=4, words=90), id="nested forms"),
        pytest.param(partial(pdfs.page_of_tokens, 1_800_000), id="tokens"),
        pytest.param(partial(pdfs.flate_bomb, 400 * pdfs.MB), id="a stream that inflates"),
        pytest.param(partial(pdfs.page_of_text, b"a 1 " * 500_000), id="words"),
    ],
)
def test_a_page_that_exhausts_the_search_ends_with_an_outcome(
    make: Callable[[], bytes], search: Search
) -> None:
    [page] = search(make())
    assert page.outcome in {
        Outcome.COMPLETE,
        Outcome.LIMIT_PAGE_CONTENT,
        Outcome.TIMEOUT_PAGE,
        Outcome.OUT_OF_MEMORY,
        Outcome.CORRUPT,
    }
    if isinstance(page, PageLayout):
        assert sum(len(each.cells) for each in page.tables) <= 10_000
