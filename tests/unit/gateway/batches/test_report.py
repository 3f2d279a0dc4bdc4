import csv
import io
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, LiteralString
from uuid import UUID

import msgspec
import pytest

from gateway.batches import report
from gateway.batches.errors import BatchNotFound
from gateway.db import Statements
from schemas.api.batches import BatchItemView, ReportFormat
from schemas.ids import BatchId

pytestmark = pytest.mark.anyio

BATCH = BatchId(UUID(int=1))


class Rows(Statements):
    """Answers as the database does, from a list of rows."""

    def __init__(self, stored: Sequence[SimpleNamespace]) -> None:
        self._stored = stored

    async def rows(self, statement: LiteralString, values: Mapping[str, Any]) -> Sequence[Any]:  # noqa: ARG002  # one statement only
        later = [row for row in self._stored if row.line > values["after"]]
        return later[: values["limit"]]


def a_row(line: int, **columns: Any) -> SimpleNamespace:  # noqa: ANN401  # any column
    empty = {"source": None, "job_id": None, "error_code": None, "error_detail": None}
    return SimpleNamespace(**{"line": line, "state": "waiting", **empty, **columns})


async def pieces(
    rows: Sequence[SimpleNamespace], report_format: ReportFormat, *, lines: int | None = None
) -> list[bytes]:
    count = len(rows) if lines is None else lines
    found = report.report_of(Rows(rows), BATCH, lines=count, report_format=report_format)
    return [piece async for piece in found]


async def test_a_report_has_each_line_once_in_bounded_pieces() -> None:
    rows = [a_row(2 * line) for line in range(1, 2502)]

    found = await pieces(rows, ReportFormat.JSONL)

    assert len(found) == 3
    items = [msgspec.json.decode(line, type=BatchItemView) for line in b"".join(found).splitlines()]
    assert [item.line for item in items] == [row.line for row in rows]


async def test_csv_keeps_text_and_guards_formulas() -> None:
    source = {"object_key": 'incoming/a, "b"', "filename": "a"}
    rows = [a_row(1, source=source), a_row(2, error_code="x", error_detail="=cmd|'/C calc'!A0")]

    text = b"".join(await pieces(rows, ReportFormat.CSV)).decode()

    head, first, second = csv.reader(io.StringIO(text, newline=""))
    assert head == list(BatchItemView.__struct_fields__)
    assert first[2] == source["object_key"]
    assert second[-1] == "'=cmd|'/C calc'!A0"


async def test_a_report_without_lines_has_only_the_header() -> None:
    assert await pieces([], ReportFormat.JSONL) == []
    assert len(await pieces([], ReportFormat.CSV)) == 1


async def test_the_report_of_a_batch_that_is_deleted_meanwhile_breaks_off() -> None:
    with pytest.raises(BatchNotFound):
        await pieces([a_row(1)], ReportFormat.JSONL, lines=2)
