from pathlib import Path

import pytest
from reportlab.lib import colors
from reportlab.pdfgen.canvas import Canvas

from tests.factories.table_pdfs import BOOKTABS, PRICES, RULED, Style, lines, pdf, table
from tests.unit.pipeline.ingest.extractors.pdf.tables.finding import layouts, rows_of

RULES_BETWEEN_COLUMNS: Style = [
    ("BOX", (0, 0), (-1, -1), 1, colors.black),
    ("LINEBELOW", (0, 0), (-1, 0), 1, colors.black),
    *(("LINEAFTER", (column, 0), (column, -1), 0.5, colors.black) for column in range(3)),
]
RULES_BETWEEN_ROWS: Style = [
    ("LINEABOVE", (0, 0), (-1, -1), 0.5, colors.black),
    ("LINEBELOW", (0, -1), (-1, -1), 0.5, colors.black),
]
HEADER_ONLY: Style = [
    ("BOX", (0, 0), (-1, -1), 1, colors.black),
    ("INNERGRID", (0, 0), (-1, 0), 0.5, colors.black),
    ("LINEBELOW", (0, 0), (-1, -1), 0.5, colors.black),
]


@pytest.mark.parametrize(
    "style",
    [RULES_BETWEEN_COLUMNS, RULES_BETWEEN_ROWS, HEADER_ONLY, BOOKTABS],
    ids=[
        "no lines between rows",
        "no lines between columns",
        "columns ruled in the header",
        "three lines",
    ],
)
def test_words_show_the_cells_that_lines_do_not(tmp_path: Path, style: Style) -> None:
    [page] = layouts(tmp_path, pdf([table(PRICES, style=style)]))
    [found] = page.tables
    assert rows_of(found) == PRICES
    assert found.header_row_count == 1


def test_wrapped_text_of_a_ruled_cell_stays_one_cell(tmp_path: Path) -> None:
    rows = [
        ["Item", "Remark"],
        ["Steel pipe", "cut to length\nand cleaned"],
        ["Copper wire\n(bare)", "sold by\nweight"],
    ]
    [page] = layouts(tmp_path, pdf([table(rows)]))
    assert [rows_of(found) for found in page.tables] == [rows]


def test_a_label_of_two_lines_is_one_row_beside_its_numbers(tmp_path: Path) -> None:
    rows = [
        ["Item", "2023", "2024"],
        ["Steel pipe", "12.5", "13.5"],
        ["Copper wire, bare\nor in a sleeve", "9.7", "8.1"],
        ["Brass valve", "31.0", "30.0"],
    ]
    style = [*BOOKTABS, ("VALIGN", (0, 0), (-1, -1), "TOP")]
    [page] = layouts(tmp_path, pdf([table(rows, style=style)]))
    assert [rows_of(found) for found in page.tables] == [rows]


def test_a_heading_over_two_columns_spans_them(tmp_path: Path) -> None:
    rows = [
        ["", "First half year", "", "Second half year", ""],
        ["Region", "N", "Sum", "N", "Sum"],
        ["North", "10", "400.50", "12", "450.00"],
        ["South", "20", "800.25", "22", "850.00"],
        ["West", "30", "120.75", "32", "125.00"],
    ]
    style = [
        *BOOKTABS,
        ("SPAN", (1, 0), (2, 0)),
        ("SPAN", (3, 0), (4, 0)),
        ("ALIGN", (1, 0), (-1, 0), "CENTER"),
    ]
    [page] = layouts(tmp_path, pdf([table(rows, style=style)]))
    [found] = page.tables
    assert rows_of(found) == rows
    spans = {cell.text: cell.column_span for cell in found.cells}
    assert (spans["First half year"], spans["Second half year"], spans["Region"]) == (2, 2, 1)


def test_backgrounds_of_lines_of_one_cell_do_not_divide_it(tmp_path: Path) -> None:
    rows = [["Name", "Sum"], ["One\ntwo", "1"], ["Three\nfour", "2"]]

    def paint(canvas: Canvas) -> None:
        canvas.setFillColor(colors.lightgrey)
        for number in range(8):  # each half as high as a row
            canvas.rect(72, 700 - 10 * (number + 1), 60, 10, stroke=0, fill=1)
        canvas.setFillColor(colors.black)

    [page] = layouts(tmp_path, pdf([paint, table(rows, widths=[60, 60])]))
    assert [rows_of(found) for found in page.tables] == [rows]


def test_a_grid_with_curves_over_its_lines_is_no_table(tmp_path: Path) -> None:
    def chart(canvas: Canvas) -> None:
        canvas.grid([100, 200, 300, 400], [500, 550, 600, 650])
        for number in range(4):
            canvas.bezier(100, 500 + 20 * number, 200, 700, 300, 400, 400, 600)

    years = [lines(year, left=110 + 100 * number, top=480) for number, year in enumerate("123")]
    values = [
        lines(f"{row}{column}", left=110 + 100 * column, top=510 + 50 * row)
        for row in range(3)
        for column in range(3)
    ]
    [page] = layouts(tmp_path, pdf([chart, *years, *values]))
    assert page.tables == ()


def test_lines_above_and_below_prose_are_no_table(tmp_path: Path) -> None:
    def rules(canvas: Canvas) -> None:
        for y in (780, 60):
            canvas.line(72, y, 520, y)

    prose = ["The quick brown fox jumps over the lazy dog, and the dog sleeps on."] * 30
    [page] = layouts(tmp_path, pdf([rules, lines(*prose)]))
    assert page.tables == ()


def test_tables_below_each_other_are_found_one_by_one(tmp_path: Path) -> None:
    parts = [
        table(PRICES, style=style, top=780 - 200 * n)
        for n, style in enumerate([RULED, BOOKTABS, RULED])
    ]
    [page] = layouts(tmp_path, pdf(parts))
    assert [rows_of(found) for found in page.tables] == [PRICES] * 3


def test_rows_above_the_first_line_and_below_the_last_one_belong_to_the_table(
    tmp_path: Path,
) -> None:
    rows = [*PRICES, ["Sum", "", "54.10", "10,592"]]
    style = [
        ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black),
        ("LINEBELOW", (0, -2), (-1, -2), 0.5, colors.black),
    ]
    [page] = layouts(tmp_path, pdf([lines("In euros", top=720), table(rows, style=style)]))
    assert [rows_of(found) for found in page.tables] == [rows]


def test_a_row_of_one_heading_does_not_divide_a_table(tmp_path: Path) -> None:
    rows = [PRICES[0], ["Metal", "", "", ""], *PRICES[1:3], ["Other", "", "", ""], *PRICES[3:]]
    [page] = layouts(tmp_path, pdf([table(rows, style=RULES_BETWEEN_ROWS)]))
    assert [rows_of(found) for found in page.tables] == [rows]
