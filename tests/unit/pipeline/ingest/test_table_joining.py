from collections.abc import Sequence

from msgspec.structs import replace

from pipeline.ingest.extractors.layout import PageLayout, TableCell, TableFound, TablePart
from pipeline.ingest.table_joining import joined
from schemas.layout import TableMethod

HEADER = ("Name", "Sum")


def table(
    page: int, *rows: Sequence[str], header: int = 1, left: int = 72, width: int = 100
) -> TableFound:
    cells = tuple(
        TableCell(
            row,
            column,
            1,
            1,
            text,
            page,
            left + column * width,
            100 + row * 20,
            left + (column + 1) * width,
            120 + row * 20,
        )
        for row, texts in enumerate(rows)
        for column, text in enumerate(texts)
    )
    return TableFound(
        parts=(TablePart(page, left, 100, left + 2 * width, 100 + len(rows) * 20),),
        row_count=len(rows),
        column_count=2,
        header_row_count=header,
        method=TableMethod.RULED,
        confidence=0.9,
        cells=cells,
    )


def pages(*tables: TableFound) -> list[PageLayout]:
    return [PageLayout(number=each.page, tables=(each,)) for each in tables]


def test_a_table_that_repeats_its_header_goes_on() -> None:
    first = table(1, HEADER, ("a", "1"), ("b", "2"))
    second = table(2, HEADER, ("c", "3"), left=90)  # the gutter is on the other side
    third = table(3, HEADER, ("d", "4"))
    [found] = joined(pages(first, second, third))
    assert [(cell.page, cell.row, cell.text) for cell in found.cells if cell.column == 0] == [
        (1, 0, "Name"),
        (1, 1, "a"),
        (1, 2, "b"),
        (2, 3, "c"),
        (3, 4, "d"),
    ]
    assert [part.page for part in found.parts] == [1, 2, 3]
    assert (found.row_count, found.header_row_count) == (5, 1)


def test_tables_with_other_headers_or_columns_stay_apart() -> None:
    first = table(1, HEADER, ("a", "1"))
    others = [
        table(2, ("Name", "Total"), ("b", "2")),
        table(3, HEADER, ("c", "3"), width=150),
        table(5, HEADER, ("d", "4"), width=150),  # page 4 is between
        table(6, ("e", "5"), ("f", "6"), header=0),
    ]
    assert list(joined(pages(first, *others))) == [first, *others]


def test_only_the_last_table_of_a_page_goes_on_in_the_first_one_of_the_next() -> None:
    upper, lower = table(1, HEADER, ("a", "1")), table(1, HEADER, ("b", "2"))
    next_page = table(2, HEADER, ("c", "3"))
    layouts = [PageLayout(number=1, tables=(upper, lower)), *pages(next_page)]
    found = list(joined(layouts))
    assert found[0] == upper
    assert [cell.text for cell in found[1].cells] == ["Name", "Sum", "b", "2", "c", "3"]
    assert len(found) == 2


def test_a_table_with_another_number_or_with_text_between_does_not_go_on() -> None:
    first = replace(table(1, HEADER, ("a", "1")), caption="Table 1. Sums")
    second = table(2, HEADER, ("b", "2"))
    assert len(list(joined(pages(first, second)))) == 1
    continued = replace(second, caption="Table 1 (continued)")
    assert len(list(joined(pages(first, continued)))) == 1
    for other in (replace(second, caption="Table 2. Others"), replace(second, lines_above=20)):
        assert list(joined(pages(first, other))) == [first, other]
    above_text = replace(first, lines_below=20)
    assert list(joined(pages(above_text, second))) == [above_text, second]
