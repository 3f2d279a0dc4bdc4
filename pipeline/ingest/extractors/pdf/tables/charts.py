"""Tells the lines of a chart from those of a table."""

from collections.abc import Sequence
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box, shared_height, shared_width
from pipeline.ingest.extractors.pdf.tables.grid import Grid

_INSIDE: Final = 1.0
_CROSSING_MIN: Final = 2
_LARGE_SHARE: Final = 0.25


def is_chart(grid: Grid, drawings: Sequence[Box]) -> bool:
    """Return whether curves, slanted lines or shapes go over the lines of a grid.

    A cell of a table may have such a drawing inside, but keeps it inside.
    """
    area = grid.box.width * grid.box.height
    crossing = 0
    for drawing in drawings:
        width, height = shared_width(drawing, grid.box), shared_height(drawing, grid.box)
        if width <= 0 or height <= 0:
            continue
        if _crosses(grid.xs, drawing.left, drawing.right) or _crosses(
            grid.ys, drawing.top, drawing.bottom
        ):
            crossing += 1
            if crossing >= _CROSSING_MIN or width * height >= _LARGE_SHARE * area:
                return True
    return False


def _crosses(places: Sequence[float], start: float, end: float) -> bool:
    return any(start + _INSIDE < place < end - _INSIDE for place in places)
