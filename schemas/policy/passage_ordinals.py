"""The ordinals of the passages of a page: those of its text, then those of its tables."""

from typing import Final

FIRST_OF_TABLES: Final = 1_000_000
"""The first ordinal of passages of tables, which are written after those of the text."""

PASSAGES_OF_TABLE_MAX: Final = 1_000
"""Passages of one table. The text of the largest table takes about as many; rows behind are found as
the text of their page."""


def ordinal_of(*, table: int, index: int) -> int:
    """Return the ordinal of a passage of a table: unique in the document."""
    return FIRST_OF_TABLES + table * PASSAGES_OF_TABLE_MAX + index


def table_of_passage(ordinal: int) -> int | None:
    """Return the number of the table that a passage belongs to; None for a passage of text."""
    return (
        (ordinal - FIRST_OF_TABLES) // PASSAGES_OF_TABLE_MAX if ordinal >= FIRST_OF_TABLES else None
    )
