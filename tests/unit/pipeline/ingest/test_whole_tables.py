import msgspec
import pytest

from pipeline.ingest.extractors.layout import PageLayout, TableFound
from pipeline.ingest.whole_tables import (
    Settled,
    TableLimits,
    UnsearchedPages,
    WholeTables,
    bounded,
)
from schemas.outcomes import Outcome
from tests.factories.tables import a_layout, a_table

ROW = ("Hamburg", "Coffee", "1200")
LIMITS = TableLimits(cells=100, text_bytes=10_000)


def whole(last_page: int = 0, *, limits: TableLimits = LIMITS) -> WholeTables:
    return WholeTables(last_page=last_page, limits=limits)


def pages_of(settled: Settled) -> list[list[int]]:
    return [[part.page for part in table.parts] for table in settled.tables]


def test_a_table_is_final_once_the_next_page_does_not_go_on_with_it() -> None:
    collected = whole()

    collected.add(a_layout(a_table(ROW), number=1, figures=1))
    first = collected.take()
    collected.add(a_layout(number=2))
    second = collected.take()

    assert (first.tables, first.figures, first.last_page) == ([], [], 0)
    assert (pages_of(second), len(second.figures), second.last_page) == ([[1]], 1, 2)


def test_the_tables_before_the_last_one_of_a_page_wait_for_their_page() -> None:
    collected = whole()

    collected.add(a_layout(a_table(ROW, header=("A", "B", "C")), a_table(ROW), number=1))

    assert collected.take().last_page == 0
    collected.close()
    assert len(collected.take().tables) == 2


def test_a_table_over_three_pages_becomes_one_with_its_header_once() -> None:
    collected = whole()
    for number in (1, 2, 3):
        collected.add(a_layout(a_table(ROW, page=number), number=number, figures=1))
        assert collected.take().last_page == 0
    collected.add(a_layout(a_table(ROW, page=4, header=("Other", "header", "here")), number=4))

    settled = collected.take()

    assert (pages_of(settled), settled.last_page) == ([[1, 2, 3]], 3)
    assert settled.tables[0].row_count == 4
    assert len(settled.figures) == 3
    collected.close()
    assert pages_of(collected.take()) == [[4]]


def test_a_table_that_would_be_too_large_goes_on_as_another_one() -> None:
    collected = whole(limits=TableLimits(cells=9, text_bytes=10_000))

    collected.add(a_layout(a_table(ROW, page=1), number=1))
    collected.add(a_layout(a_table(ROW, page=2), number=2))
    collected.close()

    assert pages_of(collected.take()) == [[1], [2]]


def test_no_table_goes_on_behind_pages_that_were_not_searched() -> None:
    collected = whole()
    skipped = UnsearchedPages(first=2, last=3, outcome=Outcome.CRASHED, reason="Why.")

    collected.add(a_layout(a_table(ROW, page=1), number=1))
    collected.skip(skipped)
    settled = collected.take()

    assert (pages_of(settled), settled.last_page) == ([[1]], 3)
    assert settled.unsearched == [skipped]


def test_a_reason_is_taken_with_its_page() -> None:
    collected = whole()
    page = msgspec.structs.replace(
        a_layout(a_table(ROW), number=1), outcome=Outcome.LIMIT_PAGE_CONTENT, reason="Why."
    )

    collected.add(page)
    before = collected.take().unsearched
    collected.add(PageLayout(number=2))

    assert before == []
    assert [(each.first, each.outcome) for each in collected.take().unsearched] == [
        (1, Outcome.LIMIT_PAGE_CONTENT)
    ]


def test_a_later_start_counts_from_its_page() -> None:
    collected = whole(last_page=7)

    assert collected.take().last_page == 7
    collected.add(PageLayout(number=8))
    assert collected.take().last_page == 8


def test_rows_beyond_the_limit_of_places_are_cut() -> None:
    table = bounded(a_table(*[ROW] * 50), limits=TableLimits(cells=30, text_bytes=10_000))

    assert (table.row_count, table.column_count, len(table.cells)) == (10, 3, 30)
    assert table.is_cut


def test_rows_beyond_the_limit_of_text_are_cut() -> None:
    table = bounded(a_table(*[ROW] * 9), limits=TableLimits(cells=100, text_bytes=60))

    assert (table.row_count, table.is_cut) == (3, True)
    assert max(cell.row for cell in table.cells) == 2


def test_a_table_with_far_more_places_than_cells_is_cut() -> None:
    sparse = msgspec.structs.replace(a_table(ROW), row_count=10**6, column_count=10**6)

    table = bounded(sparse, limits=LIMITS)

    assert table.row_count * table.column_count <= LIMITS.cells
    assert table.is_cut


def test_a_span_ends_with_the_table() -> None:
    whole_table = a_table(ROW, ROW, ROW)
    tall = msgspec.structs.replace(whole_table.cells[0], row_span=4, column_span=3)
    found = msgspec.structs.replace(whole_table, cells=(tall,))

    (cell,) = bounded(found, limits=TableLimits(cells=6, text_bytes=100)).cells

    assert (cell.row_span, cell.column_span) == (2, 3)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "\x00"])
def test_text_that_a_database_refuses_is_cleaned(text: str) -> None:
    found = a_table((text, "Coffee", "1200"), caption=f"Table {text}")

    table = bounded(found, limits=LIMITS)

    assert all(cell.text == cell.text.replace("\x00", "") for cell in table.cells)
    assert "\x00" not in table.caption
    table_as_sent(table)


def table_as_sent(table: TableFound) -> bytes:
    return msgspec.json.encode(table)
