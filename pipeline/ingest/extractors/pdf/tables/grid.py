"""Tables whose cells are divided by lines."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box
from pipeline.ingest.extractors.pdf.tables.objects import Rule

# In 1/72 inch.
_SAME_PLACE: Final = 2.5
"""Two lines this near are one: a double line, or the edges of neighbouring cells."""

_JOINED: Final = 3.0
"""Two ends this near meet."""

_BEYOND: Final = 8.0
"""Lines that reach this far beyond the outermost crossing line show an open side."""

_COVERED: Final = 0.6
"""Share of the side of a cell that a line must cover to close it."""

_PAIRS_MAX: Final = 2_000_000
_CELLS_MAX: Final = 40_000


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """A cell of a grid: first row and column, and spans."""

    row: int
    column: int
    row_span: int
    column_span: int


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Lines that cross each other, and the cells between them.

    Attributes:
        xs: places of the vertical lines, from left to right.
        ys: places of the horizontal lines, from top to bottom.
        cells: cells by row and column; they cover the whole grid.
        irregular_share: share of the area that is in no rectangle of rules.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    cells: Sequence[GridCell]
    irregular_share: float = 0.0

    @property
    def box(self) -> Box:
        return Box(self.xs[0], self.ys[0], self.xs[-1], self.ys[-1])

    def box_of(self, cell: GridCell) -> Box:
        return Box(
            self.xs[cell.column],
            self.ys[cell.row],
            self.xs[cell.column + cell.column_span],
            self.ys[cell.row + cell.row_span],
        )


def merged(rules: Sequence[Rule]) -> list[Rule]:
    """Return rules with one for all that are at the same place, or continue each other."""
    found: list[Rule] = []
    group: list[Rule] = []
    for rule in sorted(rules):
        if group and rule.place - group[0].place > _SAME_PLACE:
            found += _in_one_place(group)
            group = []
        group.append(rule)
    if group:
        found += _in_one_place(group)
    return found


def _in_one_place(rules: Sequence[Rule]) -> Iterator[Rule]:
    total = sum(rule.length for rule in rules)
    place = sum(rule.place * rule.length for rule in rules) / total
    ordered = sorted(rules, key=lambda rule: rule.start)
    start, end = ordered[0].start, ordered[0].end
    for rule in ordered[1:]:
        if rule.start <= end + _JOINED:
            end = max(end, rule.end)
        else:
            yield Rule(place, start, end)
            start, end = rule.start, rule.end
    yield Rule(place, start, end)


def grids_of(horizontal: Sequence[Rule], vertical: Sequence[Rule]) -> Iterator[Grid]:
    """Yield the grids that merged rules form."""
    if len(horizontal) * len(vertical) > _PAIRS_MAX:
        return  # a drawing
    for across, down in _crossing(horizontal, vertical):
        if len(across) + len(down) > 2:  # noqa: PLR2004  # more than one crossing
            xs = _with_open_sides([rule.place for rule in down], across)
            ys = _with_open_sides([rule.place for rule in across], down)
            if len(xs) > 1 and len(ys) > 1 and len(xs) * len(ys) <= _CELLS_MAX:
                yield _grid(xs, ys, across, down)


def _crossing(
    horizontal: Sequence[Rule], vertical: Sequence[Rule]
) -> Iterator[tuple[list[Rule], list[Rule]]]:
    """Yield groups of rules that cross each other, in order."""
    groups = _Groups(len(horizontal) + len(vertical))
    places = [rule.place for rule in vertical]
    for index, rule in enumerate(horizontal):
        first = bisect_left(places, rule.start - _JOINED)
        end = bisect_right(places, rule.end + _JOINED)
        for other in range(first, end):
            crossing = vertical[other]
            if crossing.start - _JOINED <= rule.place <= crossing.end + _JOINED:
                groups.join(index, len(horizontal) + other)
    found: dict[int, tuple[list[Rule], list[Rule]]] = {}
    for index, rule in enumerate(horizontal):
        found.setdefault(groups.root(index), ([], []))[0].append(rule)
    for index, rule in enumerate(vertical, start=len(horizontal)):
        found.setdefault(groups.root(index), ([], []))[1].append(rule)
    return (each for each in found.values() if each[0] and each[1])


class _Groups:
    """Numbers in disjoint groups."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        self._parents[self.root(one)] = self.root(other)


def _with_open_sides(places: Sequence[float], crossing: Sequence[Rule]) -> list[float]:
    """Return places without repetition, with the ends of rules that reach beyond the outermost."""
    distinct: list[float] = []
    for place in sorted(places):
        if not distinct or place - distinct[-1] > _SAME_PLACE:
            distinct.append(place)
    starts = sorted(rule.start for rule in crossing)
    ends = sorted((rule.end for rule in crossing), reverse=True)
    # Two lines agree, if there are two: one may be the line of a heading that touches the table.
    second = min(1, len(crossing) - 1)
    if distinct[0] - starts[second] > _BEYOND:
        distinct.insert(0, starts[second])
    if ends[second] - distinct[-1] > _BEYOND:
        distinct.append(ends[second])
    return distinct


def _grid(
    xs: Sequence[float], ys: Sequence[float], across: Sequence[Rule], down: Sequence[Rule]
) -> Grid:
    rows, columns = len(ys) - 1, len(xs) - 1
    groups = _Groups(rows * columns)
    walls = _Walls(xs, down)
    floors = _Walls(ys, across)
    for row, (top, bottom) in enumerate(pairwise(ys)):
        for column in range(1, columns):
            if not walls.is_closed(column, top, bottom):
                groups.join(row * columns + column - 1, row * columns + column)
    in_rows = [groups.root(index) for index in range(rows * columns)]
    for column, (left, right) in enumerate(pairwise(xs)):
        for row in range(1, rows):
            if not floors.is_closed(row, left, right):
                groups.join((row - 1) * columns + column, row * columns + column)
    cells: list[GridCell] = []
    irregular = 0.0
    for indexes in _members([groups.root(index) for index in range(rows * columns)]):
        cell = _cell(indexes, columns)
        if cell.row_span * cell.column_span == len(indexes):
            cells.append(cell)
            continue
        # No rectangle: each of its rows is a cell.
        cells += [_cell(part, columns) for part in _parts(indexes, in_rows)]
        irregular += sum(_area(index, xs, ys) for index in indexes)
    whole = (xs[-1] - xs[0]) * (ys[-1] - ys[0])
    return Grid(
        xs=xs,
        ys=ys,
        cells=sorted(cells, key=lambda cell: (cell.row, cell.column)),
        irregular_share=irregular / whole,
    )


def _area(index: int, xs: Sequence[float], ys: Sequence[float]) -> float:
    row, column = divmod(index, len(xs) - 1)
    return (xs[column + 1] - xs[column]) * (ys[row + 1] - ys[row])


class _Walls:
    """Which sides of the cells have a rule."""

    def __init__(self, places: Sequence[float], rules: Sequence[Rule]) -> None:
        self._at: list[list[Rule]] = [[] for _ in places]
        for rule in rules:
            near = bisect_left(places, rule.place - _SAME_PLACE)
            while near < len(places) and places[near] <= rule.place + _SAME_PLACE:
                self._at[near].append(rule)
                near += 1

    def is_closed(self, place: int, start: float, end: float) -> bool:
        covered = sum(
            max(0.0, min(rule.end, end) - max(rule.start, start)) for rule in self._at[place]
        )
        return covered >= _COVERED * (end - start)


def _members(groups: Sequence[int]) -> Iterable[list[int]]:
    """Return the indexes of each group."""
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return members.values()


def _parts(indexes: Sequence[int], groups: Sequence[int]) -> Iterable[list[int]]:
    """Return `indexes` by their groups."""
    parts: dict[int, list[int]] = {}
    for index in indexes:
        parts.setdefault(groups[index], []).append(index)
    return parts.values()


def _cell(indexes: Sequence[int], columns: int) -> GridCell:
    rows = [index // columns for index in indexes]
    places = [index % columns for index in indexes]
    return GridCell(
        row=min(rows),
        column=min(places),
        row_span=max(rows) - min(rows) + 1,
        column_span=max(places) - min(places) + 1,
    )
