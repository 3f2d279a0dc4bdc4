"""The report of a batch: every line with its state, streamed in bounded pieces."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from gateway.batches import queries, view
from gateway.batches.errors import BatchNotFound
from gateway.db import Statements
from schemas.api.batches import BatchItemView, ReportFormat
from schemas.ids import BatchId
from schemas.policy.spreadsheets import guarded

PIECE_LINES: Final = 1_000

MEDIA_TYPES: Final = {
    ReportFormat.JSONL: "application/jsonl",
    ReportFormat.CSV: "text/csv; charset=utf-8; header=present",
}

COLUMNS: Final = BatchItemView.__struct_fields__


async def report_of(
    statements: Statements, batch_id: BatchId, *, lines: int, report_format: ReportFormat
) -> AsyncIterator[bytes]:
    """Yield the report of a batch in the order of its lines.

    Each statement reads some lines: a slow client holds no connection, and the lines of a live
    batch have the state of the moment in which they are read.

    Args:
        statements: run the statements.
        batch_id: the batch.
        lines: how many lines it has.
        report_format: of the report.

    Raises:
        BatchNotFound: the batch was deleted meanwhile.
    """
    encode = _jsonl if report_format is ReportFormat.JSONL else _csv
    if report_format is ReportFormat.CSV:
        yield _table([COLUMNS])
    after = 0
    while lines > 0:
        rows = await queries.lines_of(
            statements, batch_id, state=None, after=after, limit=PIECE_LINES
        )
        if not rows:
            # The answer must not look complete.
            raise BatchNotFound(batch_id)
        lines -= len(rows)
        after = rows[-1].line
        yield encode([view.show_line(row) for row in rows])


def _jsonl(items: Sequence[BatchItemView]) -> bytes:
    return msgspec.json.Encoder().encode_lines(items)


def _csv(items: Sequence[BatchItemView]) -> bytes:
    return _table([[_cell(getattr(item, name)) for name in COLUMNS] for item in items])


def _cell(value: object) -> str:
    return "" if value is None else guarded(str(value))


def _table(rows: Sequence[Sequence[str]]) -> bytes:
    """Return rows of RFC 4180."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
