from pathlib import Path

import pytest
from reportlab.lib import colors
from reportlab.pdfgen.canvas import Canvas

from pipeline.ingest.extractors.layout import LayoutLimits
from schemas.layout import TableMethod
from schemas.outcomes import Outcome
from tests.factories.table_pdfs import PRICES, RULED, lines, pdf, table
from tests.unit.pipeline.ingest.extractors.pdf.tables.finding import layouts, rows_of

PROSE = ("Prices of the warehouse, which", "hold until the end of the year.")


def test_a_ruled_table_is_found_with_its_cells_header_and_caption(tmp_path: Path) -> None:
    content = pdf([lines(*PROSE, "Table 1: Prices", top=735), table(PRICES)])
    [page] = layouts(tmp_path, content)
    [found] = page.tables
    assert rows_of(found) == PRICES
    assert found.method is TableMethod.RULED
    assert found.header_row_count == 1
    assert found.caption == "Table 1: Prices"
    assert (found.page, found.is_cut, page.outcome) == (1, False, Outcome.COMPLETE)
    first, second = found.cells[:2]
    assert first.left == found.parts[0].left == pytest.approx(72, abs=1)
    assert first.top == found.parts[0].top == pytest.approx(842 - 700, abs=1)
    assert second.left == first.right


def test_a_cell_that_spans_rows_and_columns_is_one_cell(tmp_path: Path) -> None:
    rows = [
        ["Region", "2023", "", "2024", ""],
        ["", "N", "%", "N", "%"],
        ["North", "10", "4.0", "12", "4.5"],
        ["South", "20", "8.0", "22", "8.5"],
    ]
    style = [
        *RULED,
        ("SPAN", (0, 0), (0, 1)),
        ("SPAN", (1, 0), (2, 0)),
        ("SPAN", (3, 0), (4, 0)),
    ]
    [page] = layouts(tmp_path, pdf([table(rows, style=style)]))
    [found] = page.tables
    assert rows_of(found) == rows
    spans = {cell.text: (cell.row_span, cell.column_span) for cell in found.cells}
    assert (spans["Region"], spans["2023"], spans["N"]) == ((2, 1), (1, 2), (1, 1))
    assert found.header_row_count == 2


def test_a_table_without_lines_at_its_sides_keeps_its_outer_columns(tmp_path: Path) -> None:
    style = [
        ("INNERGRID", (0, 0), (-1, -1), 0.5, colors.black),
        ("LINEABOVE", (0, 0), (-1, 0), 0.5, colors.black),
        ("LINEBELOW", (0, -1), (-1, -1), 0.5, colors.black),
    ]
    [page] = layouts(tmp_path, pdf([table(PRICES, style=style)]))
    assert [rows_of(found) for found in page.tables] == [PRICES]


def test_coloured_cells_without_lines_are_cells(tmp_path: Path) -> None:
    style = [
        ("BACKGROUND", (column, row), (column, row), shade)
        for row in range(len(PRICES))
        for column in range(4)
        for shade in [colors.lightgrey if (row + column) % 2 else colors.lightblue]
    ]
    [page] = layouts(tmp_path, pdf([table(PRICES, style=style)]))
    assert [rows_of(found) for found in page.tables] == [PRICES]


def test_a_word_over_a_line_is_divided_at_the_line(tmp_path: Path) -> None:
    rows = [["ab", "cd"], ["1", "2"], ["3", "4"]]

    def draw_over(canvas: Canvas) -> None:
        canvas.setFont("Courier", 12)
        canvas.drawString(72 + 36, 630, "left")  # ends at the line
        canvas.drawString(72 + 36 + 4 * 7.2, 630, "right")
        canvas.grid([72, 72 + 36 + 4 * 7.2, 260], [620, 645, 670])
        canvas.drawString(76, 650, "one")
        canvas.drawString(180, 650, "two")

    [page] = layouts(tmp_path, pdf([table(rows, top=780), draw_over]))
    assert rows_of(page.tables[1]) == [["one", "two"], ["left", "right"]]


def test_a_frame_around_prose_is_no_table(tmp_path: Path) -> None:
    def frame(canvas: Canvas) -> None:
        canvas.rect(60, 700, 400, 100)

    [page] = layouts(tmp_path, pdf([frame, lines(*PROSE)]))
    assert page.tables == ()


def test_more_cells_than_the_limit_are_left_out_by_rows(tmp_path: Path) -> None:
    [page] = layouts(tmp_path, pdf([table(PRICES)]), limits=LayoutLimits(cells=10))
    [found] = page.tables
    assert rows_of(found) == PRICES[:2]
    assert found.is_cut
    assert page.outcome is Outcome.LIMIT_PAGE_CONTENT


def test_more_tables_than_the_limit_are_left_out(tmp_path: Path) -> None:
    parts = [table(PRICES, top=780 - 150 * number) for number in range(4)]
    [page] = layouts(tmp_path, pdf(parts), limits=LayoutLimits(tables=3))
    assert len(page.tables) == 3
    assert page.outcome is Outcome.LIMIT_PAGE_CONTENT


def test_a_page_of_many_lines_ends_at_the_limit_of_objects(tmp_path: Path) -> None:
    def hatching(canvas: Canvas) -> None:
        for number in range(3_000):
            canvas.line(50, 50 + number / 5, 500, 50 + number / 5)

    [page] = layouts(tmp_path, pdf([hatching]), limits=LayoutLimits(objects=1_000))
    assert page.tables == ()
    assert page.outcome is Outcome.LIMIT_PAGE_CONTENT
