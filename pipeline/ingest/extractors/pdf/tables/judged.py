"""Whether cells are a table, or prose, a list or a frame that looks like one."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import Final
from unicodedata import category

from pipeline.ingest.extractors.pdf.tables.draft import Draft, DraftCell
from pipeline.ingest.extractors.pdf.tables.headers import is_number
from schemas.layout import TableMethod

_CELLS_MIN: Final = 4
_ROWS_MIN: Final = 3
_FILLED_MIN: Final = 0.5
_WORDS_MAX: Final = 6
"""Words of the mean cell; columns of prose have more."""

_NUMBERS_SHARE: Final = 0.6
_NUMBERS_MIN: Final = 3
_CONTENTS_COLUMNS: Final = 3

_FORMULAS_SHARE: Final = 0.2
_FORMULAS_CELLS_MAX: Final = 24
"""Cells up to which formulas are no table: fraction bars and brackets make few, a table of formulas has more."""

_USUAL_SIGNS: Final = frozenset("+<>=|~¬±×÷−≤≥≈∼∑∆∗∙")  # noqa: RUF001  # minus and multiplication signs
"""Signs of mathematics that tables of numbers have too."""

_ARROWS: Final = range(0x2190, 0x2200)

# Shares of the competition's relations that are right; empty cells lower them.
_RULED: Final = 0.8
_BORDERLESS: Final = 0.5
_SURE: Final = 0.9


def confidence_of(draft: Draft) -> float:
    """Return how sure it is, from 0 to 1, that cells are a table as it is printed."""
    ground = _RULED if draft.method is TableMethod.RULED else _BORDERLESS
    return ground + (1 - ground) * draft.filled_share * _SURE


def is_table(draft: Draft) -> bool:
    if draft.row_count < 2 or draft.column_count < 2 or len(draft.cells) < _CELLS_MIN:  # noqa: PLR2004  # a table has two rows and two columns
        return False
    if _is_of_formulas(draft):
        return False
    return draft.method is TableMethod.RULED or _looks_like_one(draft)


def _is_of_formulas(draft: Draft) -> bool:
    """Return whether few cells are parts of formulas, or of a theorem in a frame."""
    count = len(draft.cells)
    if count > _FORMULAS_CELLS_MAX:
        return False
    return sum(_is_formula(cell.text) for cell in draft.cells) >= _FORMULAS_SHARE * count


def _is_formula(text: str) -> bool:
    return text.strip() == "=" or any(
        not each.isascii()
        and category(each) == "Sm"
        and each not in _USUAL_SIGNS
        and ord(each) not in _ARROWS
        for each in text
    )


def _looks_like_one(draft: Draft) -> bool:
    """Return whether cells that no line shows are a table: short texts, and columns of numbers."""
    if draft.row_count < _ROWS_MIN or draft.filled_share < _FILLED_MIN:
        return False
    if fmean(len(cell.text.split()) for cell in draft.cells) > _WORDS_MAX:
        return False
    columns: list[list[DraftCell]] = [[] for _ in range(draft.column_count)]
    for cell in draft.cells:
        columns[cell.column].append(cell)
    numbers = [column for column in columns if _is_of_numbers(column)]
    if not numbers:
        return False
    # A table of contents has texts and the numbers of pages, and perhaps those of its sections.
    is_contents = draft.column_count <= _CONTENTS_COLUMNS and all(map(_are_rising, numbers))
    return not (is_contents and numbers[-1] is columns[-1])


def _is_of_numbers(column: Sequence[DraftCell]) -> bool:
    count = sum(is_number(cell.text) for cell in column)
    return count >= _NUMBERS_MIN and count >= _NUMBERS_SHARE * len(column)


def _are_rising(column: Sequence[DraftCell]) -> bool:
    """Return whether the whole numbers of a column never fall."""
    numbers = [int(cell.text) for cell in column if cell.text.isdecimal()]
    return len(numbers) >= _NUMBERS_SHARE * len(column) and all(
        one <= other for one, other in pairwise(numbers)
    )
