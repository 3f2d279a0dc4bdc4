"""Which upper rows of a table name its columns."""

import re
from collections.abc import Sequence
from typing import Final

from pipeline.ingest.extractors.pdf.tables.draft import Draft, DraftCell

_DIGITS: Final = re.compile(r"\d")
_LETTERS: Final = re.compile(r"[^\W\d_]+")
_LETTERS_MAX: Final = 3  # of a unit or currency
_NAME: Final = re.compile(r"\W*(?![A-Z]{3}\s)[^\W\d_]")  # letters in front, but no currency
_DIGITS_SHARE: Final = 0.4  # the rest are separators, signs and brackets
_NOTHING: Final = re.compile(r"[-‐-―−.…:/x*]{1,3}|n\.?[/.]?a\.?", re.IGNORECASE)  # noqa: RUF001  # dashes
_YEAR: Final = re.compile(r"(?:19|20)\d\d(?:[/-]\d{2,4})?[^\w]*")
_ROWS_MAX: Final = 6
_VALUES_SHARE: Final = 0.3
"""Share of the cells of a row; a header may have ranges of ages or amounts."""


def is_number(content: str) -> bool:
    """Return whether a text is numbers, perhaps with a unit, signs and brackets, or stands for none."""
    digits = len(_DIGITS.findall(content))
    if not digits or _NAME.match(content):
        return bool(_NOTHING.fullmatch(content))
    letters = sum(map(len, _LETTERS.findall(content)))
    signs = sum(not character.isspace() for character in content)
    return letters <= min(_LETTERS_MAX, digits) and digits >= _DIGITS_SHARE * signs


def header_rows(draft: Draft) -> int:
    """Return how many upper rows seem to be the header.

    A header is above the first row with numbers that are no years, in columns that are not the
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
    cells = [cell for cell in row if cell.column > 0]
    values = sum(is_number(cell.text) and not _YEAR.fullmatch(cell.text) for cell in cells)
    return values > _VALUES_SHARE * len(cells)
