import csv
import io
from uuid import uuid4

import msgspec
import pytest

from gateway.document_tables import view
from pipeline.ingest.extractors.layout import TableFound
from schemas.ids import RevisionId
from tests.factories.tables import a_table, table_row


def rows_of(found: TableFound) -> list[list[str]]:
    text = view.csv_of(table_row(RevisionId(uuid4()), found)).decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_has_every_place_of_the_table() -> None:
    assert rows_of(a_table(("Hamburg", "", "1,200"), ("", 'the "Ada"', "a\nb"))) == [
        ["Port", "Cargo", "Weight"],
        ["Hamburg", "", "1,200"],
        ["", 'the "Ada"', "a\nb"],
    ]


@pytest.mark.parametrize("formula", ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\uff1d1"])
def test_csv_has_no_text_that_a_spreadsheet_calculates(formula: str) -> None:
    assert rows_of(a_table((formula, "a", "b")))[1][0] == f"'{formula}"


def test_the_text_of_a_cell_with_spans_is_in_its_first_place() -> None:
    found = a_table(("a", "b", "c"))
    wide = msgspec.structs.replace(found.cells[0], column_span=3)

    assert rows_of(msgspec.structs.replace(found, cells=(wide,))) == [
        ["Port", "", ""],
        ["", "", ""],
    ]
