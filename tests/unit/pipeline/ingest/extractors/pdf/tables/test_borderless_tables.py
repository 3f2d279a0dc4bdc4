from collections.abc import Sequence
from pathlib import Path

import pytest
from reportlab.pdfgen.canvas import Canvas

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


def test_headings_over_columns_span_them_without_lines(tmp_path: Path) -> None:
    rows = [
        ["", "", "Finland", "", "", "Estonia", ""],
        ["Year", "Women", "Men", "Total", "Women", "Men", "Total"],
        ["1995", "59.0", "64.2", "61.6", "49.7", "70.5", "60.1"],
        ["2000", "64.2", "70.1", "67.2", "54.1", "72.8", "63.4"],
        ["2005", "66.5", "70.3", "68.4", "57.4", "72.9", "65.1"],
    ]
    style = [("ALIGN", (0, 0), (-1, -1), "CENTER")]
    [page] = layouts(tmp_path, pdf([table(rows, style=style)]))
    [found] = page.tables
    assert found.header_row_count == 2
    assert [
        (cell.text, cell.column, cell.column_span) for cell in found.cells if cell.row == 0
    ] == [("Finland", 1, 3), ("Estonia", 4, 3)]


def test_headings_of_two_lines_are_one_row(tmp_path: Path) -> None:
    rows = [
        ["Name", "Freq.", "Mean\nloss", "Fraction\nlost"],
        ["Kept", "344", "12196", "17.4%"],
        ["Sold some", "53", "23518", "22.5%"],
        ["Sold all", "61", "9187", "22.5%"],
    ]
    style = [("VALIGN", (0, 0), (-1, 0), "BOTTOM")]
    [page] = layouts(tmp_path, pdf([table(rows, style=style)]))
    assert [rows_of(found) for found in page.tables] == [rows]


def test_a_table_whose_rows_are_strings_with_spaces_is_found(tmp_path: Path) -> None:
    rows = [["Steel pipe", "12.50", "40"], ["Copper", "9.75", "310"], ["Brass", "31.00", "42"]] * 2

    def printed(canvas: Canvas) -> None:
        canvas.setFont("Courier", 10)
        for number, (name, price, stock) in enumerate(rows):
            canvas.drawString(72, 700 - 14 * number, f"{name:<20}{price:>10}{stock:>12}")

    [page] = layouts(tmp_path, pdf([printed]))
    assert [rows_of(found) for found in page.tables] == [rows]
