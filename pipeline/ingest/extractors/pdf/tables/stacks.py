"""Regions between horizontal lines of one width, without vertical ones."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from pipeline.ingest.extractors.pdf.tables.captions import is_named
from pipeline.ingest.extractors.pdf.tables.columns import chunks_of
from pipeline.ingest.extractors.pdf.tables.grid import Grid, GridCell
from pipeline.ingest.extractors.pdf.tables.objects import Rule
from pipeline.ingest.extractors.pdf.tables.words import Word, WordLine, lines_of

# In 1/72 inch.
_SAME_PLACE: Final = 2.5
_SAME_END: Final = 8.0
_JOINED: Final = 20.0
"""Lines under the headings of neighbouring columns are this near each other."""

_LENGTH_MIN: Final = 60.0
_RULES_MAX: Final = 2_000

_COLUMN_GAP: Final = 0.8
"""Fraction of the height of a line: the gap between the columns of a table."""

_NEAR: Final = 1.0
"""Rows above the first line or below the last one are this near, in heights of a line."""

_ROW_MAX: Final = 2.0
"""Heights of a line that a row of one line has at most; between two tables there is more."""

_DIVIDED_SHARE: Final = 0.5


def stacks_of(horizontal: Sequence[Rule], words: Sequence[Word]) -> Iterator[Grid]:
    """Yield regions with tables, as grids of one column.

    Args:
        horizontal: merged rules, by place.
        words: those that belong to no other table.
    """
    rows = _rows(horizontal[:_RULES_MAX])
    while rows:
        first, *others = rows
        stack = [first, *(rule for rule in others if _is_like(first, rule))]
        rows = [rule for rule in others if rule not in stack]
        left, right = min(rule.start for rule in stack), max(rule.end for rule in stack)
        within = lines_of(
            [word for word in words if left - _SAME_END <= word.middle <= right + _SAME_END]
        )
        for run in _tabular_runs(stack, within):
            ys = [
                *_above(run[0], within),
                *(rule.place for rule in run),
                *_below(run[-1], within),
            ]
            cells = [
                GridCell(row=row, column=0, row_span=1, column_span=1) for row in range(len(ys) - 1)
            ]
            yield Grid(xs=[left, right], ys=ys, cells=cells)


def _rows(rules: Sequence[Rule]) -> list[Rule]:
    """Return rules with one for all that are beside each other."""
    found: list[Rule] = []
    for rule in sorted(rules, key=lambda rule: (round(rule.place / _SAME_PLACE), rule.start)):
        if (
            found
            and abs(found[-1].place - rule.place) <= _SAME_PLACE
            and rule.start - found[-1].end <= _JOINED
        ):
            last = found[-1]
            found[-1] = Rule(last.place, min(last.start, rule.start), max(last.end, rule.end))
        else:
            found.append(rule)
    return sorted(rule for rule in found if rule.length >= _LENGTH_MIN)


def _is_like(one: Rule, other: Rule) -> bool:
    return abs(one.start - other.start) <= _SAME_END and abs(one.end - other.end) <= _SAME_END


def _tabular_runs(stack: Sequence[Rule], lines: Sequence[WordLine]) -> Iterator[list[Rule]]:
    """Yield runs of neighbouring rules with columns of text between each two of them.

    One line without columns may stand between two such pairs: it heads the rows below.
    """
    bands = [
        [line for line in lines if upper.place <= _height(line) <= lower.place]
        for upper, lower in pairwise(stack)
    ]
    tabular = [_is_tabular(band) for band in bands]
    run: list[Rule] = []
    for index, (upper, lower) in enumerate(pairwise(stack)):
        is_between = any(tabular[:index][-1:]) and any(tabular[index + 1 : index + 2])
        is_heading = is_between and _is_row(bands[index], lower.place - upper.place)
        if tabular[index] or is_heading:
            run = [*run, lower] if run else [upper, lower]
        else:
            if run:
                yield run
            run = []
    if run:
        yield run


def _is_row(lines: Sequence[WordLine], height: float) -> bool:
    """Return whether one line fills the height between two rules, and is no caption."""
    if len(lines) != 1 or is_named(" ".join(word.text for word in lines[0].words)):
        return False
    return height <= _ROW_MAX * lines[0].box.height


def _is_tabular(lines: Sequence[WordLine]) -> bool:
    """Return whether at least half of the lines have gaps between columns."""
    return bool(lines) and sum(map(_is_divided, lines)) >= _DIVIDED_SHARE * len(lines)


def _is_divided(line: WordLine) -> bool:
    return len(chunks_of(line.words, gap=_COLUMN_GAP)) > 1


def _above(rule: Rule, lines: Sequence[WordLine]) -> list[float]:
    """Return the upper edge of the lines with columns right above a rule, if there are any."""
    edge = rule.place
    for line in reversed([line for line in lines if _height(line) < rule.place]):
        if edge - line.box.bottom > _NEAR * line.box.height or not _continues(line):
            break
        edge = line.box.top
    return [edge] if edge < rule.place else []


def _below(rule: Rule, lines: Sequence[WordLine]) -> list[float]:
    """Return the lower edge of the lines with columns right below a rule, if there are any."""
    edge = rule.place
    for line in [line for line in lines if _height(line) > rule.place]:
        if line.box.top - edge > _NEAR * line.box.height or not _continues(line):
            break
        edge = line.box.bottom
    return [edge] if edge > rule.place else []


def _continues(line: WordLine) -> bool:
    content = " ".join(word.text for word in line.words)
    return _is_divided(line) and not is_named(content)


def _height(line: WordLine) -> float:
    return (line.box.top + line.box.bottom) / 2
