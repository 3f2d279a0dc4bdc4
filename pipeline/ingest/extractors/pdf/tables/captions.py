"""The heading of a table."""

import re
from collections.abc import Sequence
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box, shared_width
from pipeline.ingest.extractors.pdf.tables.words import WordLine

_NAMED: Final = re.compile(
    r"(?i:table|tableau|tabelle|tabell?a|tabla|tab\.|exhibit|übersicht|annex|figure|figura|fig\.|chart"
    r"|graph|abbildung|abb\.|diagram)(?:\s*\d|\s+[A-Z]{1,4}[.-]?\d*\b)"
)
"""A name with its number, such as Table 3 or Annex IV."""

_FIGURE: Final = re.compile(r"fig|chart|graph|abb|diagram", re.IGNORECASE)
_CHARACTERS_MAX: Final = 300
_NEAR: Final = 3.0
"""Heights of a line between the heading and the table."""


def is_named(content: str) -> bool:
    """Return whether a line begins with the name and number of a table or figure."""
    return bool(_NAMED.match(content))


def is_called_figure(box: Box, lines: Sequence[WordLine]) -> bool:
    """Return whether the nearest caption above a table is that of a figure."""
    above = [_text(line) for line in lines if _is_near(line.box, box.top - line.box.bottom, box)]
    named = [content for content in above if is_named(content)]
    return bool(named) and bool(_FIGURE.match(named[-1]))


def caption_of(box: Box, lines: Sequence[WordLine]) -> str:
    """Return the line that names a table: one with its number, else the nearest one above it.

    Args:
        box: of the table.
        lines: of the page, from top to bottom, without those of tables.
    """
    above = [line for line in lines if _is_near(line.box, box.top - line.box.bottom, box)]
    below = [line for line in lines if _is_near(line.box, line.box.top - box.bottom, box)]
    for line in [*reversed(above), *below]:
        content = _text(line)
        if is_named(content):
            return content[:_CHARACTERS_MAX]
    content = _text(above[-1]) if above else ""
    return content if len(content) <= _CHARACTERS_MAX and not content.endswith(".") else ""


def _is_near(line: Box, gap: float, table: Box) -> bool:
    return -0.5 * line.height <= gap <= _NEAR * line.height and shared_width(line, table) > 0


def _text(line: WordLine) -> str:
    return " ".join(word.text for word in line.words)
