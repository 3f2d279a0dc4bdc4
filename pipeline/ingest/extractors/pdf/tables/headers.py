"""Which upper rows of a table name its columns."""

import re
from collections.abc import Sequence
from typing import Final

from pipeline.ingest.extractors.pdf.tables.draft import Draft, DraftCell

_NUMBER: Final = re.compile(r"[^\w]*\d[\d.,  /:'’%-]*[^\w]*(?:%|[A-Za-z€$£]{1,3})?[^\w]*")  # noqa: RUF001  # quotes in numbers
_YEAR: Final = re.compile(r"(?:19|20)\d\d(?:[/-]\d{2,4})?[^\w]*")
_ROWS_MAX: Final = 6


def is_number(content: str) -> bool:
    """Return whether a text is a number, perhaps with a unit or sign, or stands for none."""
    return bool(_NUMBER.fullmatch(content)) or content in {"-", "–", "—", "..", "…", ":", "x"}  # noqa: RUF001  # dashes


def header_rows(draft: Draft) -> int:
    """Return how many upper rows seem to be the header.

    A header is above the first row with a number that is no year, in a column that is not the
    first. In a table without numbers, the first row is the header if each of its columns has a
    text, and no text is long.
    """
    rows: list[list[DraftCell]] = [[] for _ in range(draft.row_count)]
    for cell in draft.cells:
        rows[cell.row].append(cell)
    first = next((index for index, row in enumerate(rows) if _has_values(row)), None)
    if first is None:
        top = rows[0] if rows else []
        is_full = sum(cell.column_span for cell in top) == draft.column_count
        first = 1 if is_full and draft.row_count > 1 else 0
    count = min(first, _ROWS_MAX)
    if count == 0 or count >= draft.row_count:
        return 0
    # A cell of the header may reach further down.
    ends = max((cell.row + cell.row_span for cell in draft.cells if cell.row < count), default=0)
    return ends if ends < draft.row_count and ends <= _ROWS_MAX else count


def _has_values(row: Sequence[DraftCell]) -> bool:
    return any(
        cell.column > 0 and is_number(cell.text) and not _YEAR.fullmatch(cell.text) for cell in row
    )
