"""Rectangles on a page as displayed."""

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle, in 1/72 inch from the upper left corner of the page as displayed."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


def around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around `boxes`, of which there is at least one."""
    if len(boxes) == 1:
        return boxes[0]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return Box(min(lefts), min(tops), max(rights), max(bottoms))


def shared_width(one: Box, other: Box) -> float:
    """Return the width of the range of x that both boxes cover; negative if there is a gap."""
    return min(one.right, other.right) - max(one.left, other.left)


def shared_height(one: Box, other: Box) -> float:
    """Return the height of the range of y that both boxes cover; negative if there is a gap."""
    return min(one.bottom, other.bottom) - max(one.top, other.top)
