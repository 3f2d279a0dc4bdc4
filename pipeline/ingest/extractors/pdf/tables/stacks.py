"""Regions between horizontal lines of one width, without vertical ones."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box
from pipeline.ingest.extractors.pdf.tables.columns import chunks_of
from pipeline.ingest.extractors.pdf.tables.grid import Grid, GridCell
from pipeline.ingest.extractors.pdf.tables.objects import Rule
from pipeline.ingest.extractors.pdf.tables.words import Word, lines_of

# In 1/72 inch.
_SAME_PLACE: Final = 2.5
_SAME_END: Final = 8.0
_JOINED: Final = 20.0
"""Lines under the headings of neighbouring columns are this near each other."""

_LENGTH_MIN: Final = 60.0
_RULES_MAX: Final = 2_000

_COLUMN_GAP: Final = 0.8
"""Fraction of the height of a line: the gap between the columns of a table."""

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
        for run in _tabular_runs(stack, words):
            ys = [rule.place for rule in run]
            xs = [min(rule.start for rule in run), max(rule.end for rule in run)]
            cells = [
                GridCell(row=row, column=0, row_span=1, column_span=1) for row in range(len(ys) - 1)
            ]
            yield Grid(xs=xs, ys=ys, cells=cells)


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


def _tabular_runs(stack: Sequence[Rule], words: Sequence[Word]) -> Iterator[list[Rule]]:
    """Yield runs of neighbouring rules with columns of text between each two of them."""
    run: list[Rule] = []
    for upper, lower in pairwise(stack):
        region = Box(upper.start, upper.place, upper.end, lower.place)
        if _is_tabular(region, words):
            run = [*run, lower] if run else [upper, lower]
        else:
            if run:
                yield run
            run = []
    if run:
        yield run


def _is_tabular(region: Box, words: Sequence[Word]) -> bool:
    """Return whether at least half of the lines in a region have gaps between columns."""
    within = [
        word
        for word in words
        if region.top <= (word.box.top + word.box.bottom) / 2 <= region.bottom
        and region.left - _SAME_END <= word.middle <= region.right + _SAME_END
    ]
    lines = lines_of(within)
    divided = sum(len(chunks_of(line.words, gap=_COLUMN_GAP)) > 1 for line in lines)
    return bool(lines) and divided >= _DIVIDED_SHARE * len(lines)
