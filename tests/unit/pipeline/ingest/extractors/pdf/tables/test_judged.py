"""Which cells are a table."""

import pytest

from pipeline.ingest.extractors.pdf.geometry import Box
from pipeline.ingest.extractors.pdf.tables.draft import Draft, DraftCell
from pipeline.ingest.extractors.pdf.tables.judged import is_table
from schemas.layout import TableMethod


def ruled(*rows: tuple[str, ...]) -> Draft:
    box = Box(0, 0, 1, 1)
    return Draft(
        box=box,
        method=TableMethod.RULED,
        row_count=len(rows),
        column_count=len(rows[0]),
        cells=[
            DraftCell(
                row=row, column=column, row_span=1, column_span=1, text=text, box=box, ink=box
            )
            for row, texts in enumerate(rows)
            for column, text in enumerate(texts)
        ],
    )


@pytest.mark.parametrize(
    "rows",
    [
        (("X \u2286 Y", "1"), ("{sin x \u2208", "0.5")),
        (("(z1\u2212z2)", "1"), ("=", "x"), ("(z1\u2212z4)", "y"), ("=", "z")),
        (("\u23a7 1", "2t"), ("\u23a8 t", "3")),
    ],
    ids=["sets", "fractions", "brackets"],
)
def test_parts_of_formulas_are_no_table(rows: tuple[tuple[str, ...], ...]) -> None:
    assert not is_table(ruled(*rows))


@pytest.mark.parametrize(
    "rows",
    [
        (("n = 25", "\u22120.03\u2217"), ("\u2264 5", "\u00b1 2")),
        (("Hamburg \u2192 Bremen", "3"), ("\u2191 5 %", "\u2211 100")),
        tuple((f"x \u2208 A{row}", "1", "2", "3", "4") for row in range(6)),
    ],
    ids=["statistics", "arrows", "many"],
)
def test_a_table_may_have_signs_of_mathematics(rows: tuple[tuple[str, ...], ...]) -> None:
    assert is_table(ruled(*rows))
