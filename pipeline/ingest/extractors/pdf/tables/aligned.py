"""Regions whose words stand in columns, without lines that show it."""

import re
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import around
from pipeline.ingest.extractors.pdf.tables.captions import is_named
from pipeline.ingest.extractors.pdf.tables.columns import Chunk, chunks_of
from pipeline.ingest.extractors.pdf.tables.grid import Grid, GridCell
from pipeline.ingest.extractors.pdf.tables.words import Word, WordLine

# Fractions of the height of a line.
_COLUMN_GAP: Final = 0.9
_LINES_APART: Final = 2.5
_MARGIN: Final = 0.2

_DIVIDED_MIN: Final = 3
"""Lines with columns that a table has at least."""

_BETWEEN_MAX: Final = 2
"""Lines without columns in a row that a table may have inside: headings, and wrapped labels."""

_PROSE_SHARE: Final = 0.6
"""Share of the width of the text that a line without columns inside of a table fills at most."""

_MARK: Final = re.compile(
    r"\W{1,4}|\(?(?:\d{1,2}|[a-zA-Z]|[ivxIVX]{1,5})[.)]?\)?|[^\W\d]+(?: [^\W\d]+)?:"
)
"""A bullet, the number of an item of a list, or a word with a colon."""

_SECTION: Final = re.compile(r"\d{1,2}(?:\.\d{1,2})*\.?")

_LEADER: Final = re.compile(r"(?:\.\s?){4,}|…{2,}|_{4,}")


Run = Sequence[WordLine]
"""Lines that follow each other."""


def runs_of(lines: Sequence[WordLine]) -> Iterator[Run]:
    """Yield runs of lines that may be tables.

    Args:
        lines: from top to bottom, without those of other tables.
    """
    if not lines:
        return
    width = max(line.box.right for line in lines) - min(line.box.left for line in lines)
    run: list[WordLine] = []
    between: list[WordLine] = []
    for line in lines:
        is_far = bool(run) and _is_far((between or run)[-1], line)
        is_divided = _is_divided(line)
        if is_divided and not is_far:
            run += [*between, line]
            between = []
        elif (
            run
            and not is_divided
            and not is_far
            and len(between) < _BETWEEN_MAX
            and _may_be_inside(line, width)
        ):
            between.append(line)
        else:
            yield run
            run, between = [line] if is_divided else [], []
    yield run


def parts_of(run: Run) -> Iterator[Run]:
    """Yield the parts of a run between its lines without columns."""
    part: list[WordLine] = []
    for line in run:
        if _is_divided(line):
            part.append(line)
        else:
            yield part
            part = []
    if len(part) < len(run):
        yield part


def grid_of(run: Run) -> Grid | None:
    """Return a run as a grid of one cell; None if too few of its lines have columns."""
    if sum(map(_is_divided, run)) < _DIVIDED_MIN:
        return None
    box = around([line.box for line in run])
    margin = _MARGIN * median(line.box.height for line in run)
    return Grid(
        xs=[box.left - margin, box.right + margin],
        ys=[box.top - margin, box.bottom + margin],
        cells=[GridCell(row=0, column=0, row_span=1, column_span=1)],
    )


def words_in(run: Run) -> list[Word]:
    return [word for line in run for word in line.words]


def _is_divided(line: WordLine) -> bool:
    """Return whether a line has at least two columns, and is no item of a list and no caption."""
    chunks = _columns(line)
    if is_named(" ".join(chunk.text for chunk in chunks)):
        return False
    return len(chunks) > 1 and not any(_LEADER.search(chunk.text) for chunk in chunks)


def _columns(line: WordLine) -> list[Chunk]:
    chunks = chunks_of(line.words, gap=_COLUMN_GAP)
    if len(chunks) == 2:  # noqa: PLR2004  # perhaps a mark and its text
        mark, content = chunks[0].text, chunks[1].text
        if _MARK.fullmatch(mark) or (_SECTION.fullmatch(mark) and content[0].isalpha()):
            return chunks[1:]
    return chunks


def _is_far(upper: WordLine, lower: WordLine) -> bool:
    gap = lower.box.top - upper.box.bottom
    return gap > _LINES_APART * max(upper.box.height, lower.box.height)


def _may_be_inside(line: WordLine, width: float) -> bool:
    """Return whether a line without columns is too short for prose, and no caption."""
    content = " ".join(word.text for word in line.words)
    return line.box.width <= _PROSE_SHARE * width and not is_named(content)
