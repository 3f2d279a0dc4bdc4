"""Columns that the places of words show."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple

from pipeline.ingest.extractors.pdf.geometry import Box, around
from pipeline.ingest.extractors.pdf.tables.headers import is_number
from pipeline.ingest.extractors.pdf.tables.words import Word

# Fractions of the height of a line.
CHUNK_GAP: Final = 0.35
"""A wider gap divides two chunks; a space is a quarter, and more in justified text."""

_GUTTER: Final = 0.35
_GUTTER_OF_FEW: Final = 0.8
_GUTTER_STEP: Final = 0.06
"""Spaces of a few lines may be below each other by chance: fewer lines need a wider gutter."""

_FEW: Final = 4
_BOTH_MIN: Final = 2
_BOTH_SHARE: Final = 0.15
"""Share of the lines that have text on both sides of a gutter that is no wider than some spaces."""

_SPANNING_SHARE: Final = 0.25
"""Share of the lines that may go over a gutter: headings, and labels that are too long."""

_INSIDE: Final = 1.0
"""How far, in 1/72 inch, a chunk must reach over a place to cross it."""

_BOTH_SIDES_MIN: Final = 3
_NUMBERS_SHARE: Final = 0.6


class Chunk(NamedTuple):
    """Words of a line that belong together."""

    words: Sequence[Word]
    box: Box

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    def crosses(self, place: float) -> bool:
        return self.box.left < place - _INSIDE and self.box.right > place + _INSIDE


class Gutter(NamedTuple):
    """A gap between two columns."""

    left: float
    right: float

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2


def chunks_of(words: Sequence[Word], *, gap: float = CHUNK_GAP) -> list[Chunk]:
    """Return the chunks of a line, whose words are from left to right."""
    groups: list[list[Word]] = []
    right = 0.0
    for word in words:
        if groups and word.box.left - right <= gap * word.height:
            groups[-1].append(word)
            right = max(right, word.box.right)
        else:
            groups.append([word])
            right = word.box.right
    return [Chunk(group, around([word.box for word in group])) for group in groups]


def gutters_of(lines: Sequence[Sequence[Chunk]]) -> list[Gutter]:
    """Return the gaps between the columns that the chunks of lines form.

    A chunk that goes over several columns, such as a heading, is left out of account.
    """
    chunks = [chunk for line in lines for chunk in line]
    # A line of one chunk is often a heading, or goes on from the line above.
    divided = [line for line in lines if len(line) > 1]
    if not divided:
        return []
    height = median(chunk.box.height for chunk in chunks)
    widest = height * max(_GUTTER, _GUTTER_OF_FEW - _GUTTER_STEP * len(divided))
    first = _gaps(
        [chunk for line in divided for chunk in line],
        allowed=int(_SPANNING_SHARE * len(divided)),
        width=widest,
    )
    places = [gap.middle for gap in first]
    narrow = [chunk for chunk in chunks if not any(chunk.crosses(place) for place in places)]
    gutters = _gaps(narrow, allowed=0, width=widest)
    return _without_staggered(gutters, divided, height=height)


def _gaps(chunks: Sequence[Chunk], *, allowed: int, width: float) -> list[Gutter]:
    """Return the ranges of x of at least a width, inside, that at most `allowed` chunks cover."""
    ends = sorted(
        [(chunk.box.left, 1) for chunk in chunks] + [(chunk.box.right, -1) for chunk in chunks],
        key=lambda end: (end[0], -end[1]),
    )
    gaps: list[Gutter] = []
    run: list[tuple[float, float, int]] = []  # with the number of chunks that cover each part
    covered = 0
    is_inside = False
    for (x, change), (following, _) in pairwise([*ends, ends[-1]]):
        covered += change
        if covered <= allowed:
            run.append((x, following, covered))
            continue
        if run and is_inside and x - run[0][0] >= width:
            gaps.append(_least_covered(run, width=width))
        is_inside = True
        run = []
    return gaps


def _least_covered(run: Sequence[tuple[float, float, int]], *, width: float) -> Gutter:
    """Return the widest range that the fewest chunks cover, of at least a width."""
    for allowed in range(max(cover for _, _, cover in run)):
        ranges: list[Gutter] = []
        for start, end, cover in run:
            if cover > allowed:
                continue
            if ranges and ranges[-1].right == start:
                ranges[-1] = Gutter(ranges[-1].left, end)
            else:
                ranges.append(Gutter(start, end))
        widest = max(ranges, key=lambda each: each.right - each.left, default=None)
        if widest is not None and widest.right - widest.left >= width:
            return widest
    return Gutter(run[0][0], run[-1][1])


def _without_staggered(
    gutters: Sequence[Gutter], lines: Sequence[Sequence[Chunk]], *, height: float
) -> list[Gutter]:
    """Return the gutters without those whose two columns rarely have text in one line.

    Such columns are one: its texts are indented, or its heading is beside its numbers or has a
    wide space.
    """
    kept = list(gutters)
    few = 1 if len(lines) < _FEW else _BOTH_MIN
    index = 0
    while index < len(kept):
        left = kept[index - 1].middle if index else float("-inf")
        right = kept[index + 1].middle if index + 1 < len(kept) else float("inf")
        place = kept[index].middle
        is_narrow = kept[index].right - kept[index].left < _GUTTER_OF_FEW * height
        needed = max(few, _BOTH_SHARE * len(lines)) if is_narrow else few
        if sum(_has_both(line, left, place, right) for line in lines) >= needed:
            index += 1
        else:
            del kept[index]
    return kept


def _has_both(line: Iterable[Chunk], left: float, place: float, right: float) -> bool:
    sides = {
        chunk.box.right <= place + _INSIDE
        for chunk in line
        if chunk.box.right > left + _INSIDE
        and chunk.box.left < right - _INSIDE
        and not chunk.crosses(place)
        and not chunk.crosses(left)
        and not chunk.crosses(right)
    }
    return len(sides) > 1


def divides_numbers(gutter: Gutter, lines: Sequence[Sequence[Chunk]]) -> bool:
    """Return whether most lines have chunks on both sides, and numbers on at least one."""
    both = numbers = 0
    for line in lines:
        left = [chunk for chunk in line if chunk.box.right <= gutter.middle]
        right = [chunk for chunk in line if chunk.box.left >= gutter.middle]
        if left and right:
            both += 1
            numbers += is_number(left[-1].text) or is_number(right[0].text)
    return both >= _BOTH_SIDES_MIN and 2 * both >= len(lines) and numbers >= _NUMBERS_SHARE * both
