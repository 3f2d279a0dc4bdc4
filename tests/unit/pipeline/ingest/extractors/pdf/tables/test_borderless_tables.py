from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.ingest.extractors.layout import TableFound
from schemas.layout import TableMethod
from tests.factories.table_pdfs import BARE, BOOKTABS, PRICES, Style, lines, pdf, table
from tests.unit.pipeline.ingest.extractors.pdf.tables.finding import layouts, rows_of

PROSE = (
    "The prices of the warehouse hold until the end of the year, and for orders in writing",
    "only. They are without tax and without the cost of transport, which depends on the way",
    "and on the weight. Goods of more than a ton are sent by rail, where there is a station.",
)


def found_in(directory: Path, *texts: Sequence[str]) -> tuple[TableFound, ...]:
    """Return the tables of a page that shows each text at its own place of a line."""
    parts = [
        lines(text, left=72 + 150 * column, top=760 - 14 * row)
        for row, columns in enumerate(texts)
        for column, text in enumerate(columns)
    ]
    [page] = layouts(directory, pdf(parts))
    return page.tables


def test_a_table_without_lines_is_found_between_prose(tmp_path: Path) -> None:
    content = pdf(
        [
            lines(*PROSE, "Table 1: Prices", top=780),
            table(PRICES, style=BARE, top=720),
            lines(*PROSE, top=600),
        ]
    )
    [page] = layouts(tmp_path, content)
    [found] = page.tables
    assert rows_of(found) == PRICES
    assert found.method is TableMethod.BORDERLESS
    assert found.caption == "Table 1: Prices"
    assert found.header_row_count == 1
    assert 0 < found.confidence < 1


def test_notes_and_headings_around_a_table_are_not_part_of_it(tmp_path: Path) -> None:
    content = pdf(
        [
            lines("3.2", top=750),
            lines("Stock at the end of the year", left=120, top=750),
            table(PRICES, style=BARE, top=735),
            lines("Source:", top=630),
            lines("own figures", left=150, top=630),
        ]
    )
    [page] = layouts(tmp_path, content)
    assert [rows_of(found) for found in page.tables] == [PRICES]


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param(
            [("1.", "Steel"), ("2.", "Copper"), ("3.", "Brass"), ("4.", "Iron")], id="list"
        ),
        pytest.param(
            [("Introduction", "3"), ("Materials", "7"), ("Methods", "12"), ("Results", "31")],
            id="table of contents",
        ),
        pytest.param([(PROSE[0][:26], PROSE[1][:26])] * 12, id="columns of prose"),
        pytest.param([("Steel", "12"), ("Copper", "9")], id="two lines"),
    ],
)
def test_what_only_looks_like_a_table_is_none(
    tmp_path: Path, texts: Sequence[Sequence[str]]
) -> None:
    assert found_in(tmp_path, *texts) == ()


def test_contents_with_dots_are_no_table(tmp_path: Path) -> None:
    entries = [f"Chapter {number} {'. ' * 40}{12 * number}" for number in range(1, 9)]
    assert found_in(tmp_path, *[(entry,) for entry in entries]) == ()


def test_columns_of_short_words_are_a_table_only_with_numbers(tmp_path: Path) -> None:
    words = [("Steel", "Copper"), ("Iron", "Brass"), ("Tin", "Lead"), ("Zinc", "Gold")]
    assert found_in(tmp_path, *words) == ()
    [found] = found_in(tmp_path, *[(one, other, f"{len(one)}.5") for one, other in words])
    assert rows_of(found)[0] == ["Steel", "Copper", "5.5"]


@pytest.mark.parametrize("style", [BARE, BOOKTABS], ids=["without lines", "three lines"])
def test_a_table_in_a_column_of_prose_has_no_words_of_the_other_column(
    tmp_path: Path, style: Style
) -> None:
    left = [f"The left column has prose in line {number} of many" for number in range(48)]
    above = [f"The right column has a few lines {number} too, above" for number in range(12)]
    content = pdf(
        [
            lines(*left, left=50, top=780),
            lines(*above, left=320, top=780),
            table(PRICES, style=style, left=320, top=590),
            lines(*above, left=320, top=450),
        ]
    )
    [page] = layouts(tmp_path, content)
    assert [rows_of(found) for found in page.tables] == [PRICES]
