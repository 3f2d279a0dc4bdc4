"""The summary of a document in the result of its job."""

from collections.abc import Sequence
from typing import Final

from schemas.outcomes import Reason

FIRST_LINES: Final = 3
LINE_CHARACTERS: Final = 120
CHARACTERS: Final = 2_000
"""Characters of a page that are searched for its first lines."""
PAGES: Final = 20
"""Pages that are searched for text."""


def first_lines_of(text: str) -> list[str]:
    """Return the first lines of a text that are not blank; a longer line ends with an ellipsis."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [
        line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 1]}…"
        for line in filter(None, lines)
    ][:FIRST_LINES]


def missing_of(reasons: Sequence[Reason]) -> list[str]:
    """Return a sentence for each reason, with its pages in front."""
    return [f"{_pages_of(reason)}{reason.reason}" for reason in reasons]


def _pages_of(reason: Reason) -> str:
    if not reason.pages:
        return ""
    ranges = [str(first) if first == last else f"{first}-{last}" for first, last in reason.pages]
    named = sum(last - first + 1 for first, last in reason.pages)
    others = " and others" if named < reason.page_count else ""
    return f"{'Page' if reason.page_count == 1 else 'Pages'} {', '.join(ranges)}{others}: "
