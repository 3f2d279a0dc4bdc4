"""The passages of a table: its rows, in groups, each with the caption and the header."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from pipeline.enrich.passages import SHORTEST, Budget, tokens_of
from pipeline.ingest.extractors.layout import TableCell, TableFound
from schemas.policy.passage_ordinals import PASSAGES_OF_TABLE_MAX

HEAD_PART: Final = 4
"""The caption and the header take at most one of these parts of a passage each: the rows need room."""

_BETWEEN: Final = " | "


class TablePassage(NamedTuple):
    """A passage; `page` is that of its first row."""

    page: int
    text: str
    tokens: int


def passages_of(table: TableFound, *, budget: Budget) -> Iterator[TablePassage]:
    """Yield the passages of a table, in order.

    Each begins with the caption and the header of the table, so that a number is found by the name of
    its column. A row that is too long becomes several passages.

    Args:
        table: the table.
        budget: how long passages are; they do not overlap.
    """
    head = "\n".join(_cut(line, budget.tokens // HEAD_PART) for line in _head_of(table))
    room = budget.tokens - (tokens_of(head) if head else 0)
    number = 0
    for page, lines in _groups(table, room=room):
        text = "\n".join((head, *lines)) if head else "\n".join(lines)
        if len(text) < SHORTEST or not any(map(str.isalnum, text)):
            continue
        yield TablePassage(page, text, tokens_of(text))
        number += 1
        if number == PASSAGES_OF_TABLE_MAX:
            return


def _head_of(table: TableFound) -> Iterator[str]:
    caption = " ".join(table.caption.split())
    if caption:
        yield caption
    header = [cell for cell in table.cells if cell.row < table.header_row_count]
    if header:
        yield _line(header)


def _groups(table: TableFound, *, room: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the lines of each passage with the page of the first one; a table of a header alone has one."""
    page, lines, tokens = table.page, list[str](), 0
    is_header_alone = all(cell.row < table.header_row_count for cell in table.cells)
    if is_header_alone and table.cells:
        yield page, ()
    rows = [cell for cell in table.cells if cell.row >= table.header_row_count]
    for _, of_row in groupby(rows, key=lambda cell: cell.row):
        cells = list(of_row)
        for line in _pieces(_line(cells), tokens=room):
            needed = tokens_of(line)
            if lines and tokens + needed > room:
                yield page, lines
                lines, tokens = [], 0
            if not lines:
                page = cells[0].page
            lines.append(line)
            tokens += needed
    if lines:
        yield page, lines


def _line(cells: Sequence[TableCell]) -> str:
    return _BETWEEN.join(" ".join(cell.text.split()) for cell in cells)


def _pieces(line: str, *, tokens: int) -> Iterator[str]:
    """Yield a line in pieces of at most `tokens`, cut at spaces where there are any."""
    while line:
        piece = _cut(line, tokens)
        yield piece
        line = line[len(piece) :].lstrip()


def _cut(line: str, tokens: int) -> str:
    """Return the beginning of a line that has at most `tokens`; at least one character."""
    size = len(line)
    while size > 1 and (own := tokens_of(line[:size])) > tokens:
        size = max(1, min(size - 1, size * tokens // own))
    if size < len(line):
        space = line.rfind(" ", size // 2, size + 1)
        size = size if space == -1 else space
    return line[:size].rstrip() or line[:size]
