"""The order in which the parts of a page are read."""

import heapq
from collections.abc import Container, Sequence
from itertools import pairwise
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box, around, shared_height, shared_width
from pipeline.ingest.extractors.pdf.lines import PageLine
from pipeline.ingest.extractors.pdf.pdfium import PdfiumPage

_BLOCKS_MAX: Final = 60  # all pairs are compared
_EDGE: Final = 0.12  # of the height of the page: where running headers and footers are
_SAME_COLUMN: Final = 0.3  # of the narrower of two boxes
_SAME_ROW: Final = 0.5  # of the lower of two boxes
_BLOCK_GAP: Final = 1.5  # of the height of a line
_WIDE: Final = 0.2  # of the widest line


def in_reading_order(page: PdfiumPage, lines: list[PageLine]) -> list[PageLine]:
    """Return the lines of `page` in the order in which they are read."""
    boxes = [line.box for line in lines if line.box is not None]
    if len(boxes) < len(lines):
        return lines
    return [lines[index] for index in _order(boxes, page_height=page.height)]


def _order(boxes: Sequence[Box], *, page_height: float) -> list[int]:
    """Return the order in which the lines of a page are read.

    Most files keep the order of reading, which only their author knew, so it is changed only
    where it is plainly wrong: a header or footer that stands at the other end of the text, and
    wide lines that stand above an earlier one of their column. Then the lines form blocks, and a
    block is read before those below it in its column, and before those to its right.
    """
    sequence = _with_edges_in_place(boxes, page_height=page_height)
    widest = max((box.right - box.left for box in boxes), default=0)
    wide = [index for index in sequence if boxes[index].right - boxes[index].left > _WIDE * widest]
    if _goes_back([boxes[index] for index in wide]):
        blocks = _blocks(boxes, sequence, wide=set(wide))
        if len(blocks) <= _BLOCKS_MAX:
            return [line for block in _sorted(boxes, blocks, set(wide)) for line in block]
    return sequence


def _with_edges_in_place(boxes: Sequence[Box], *, page_height: float) -> list[int]:
    """Move a footer from the start of the text to its end, and a header from the end to the start.

    A header is above all lines of the body: a short last column is not.
    """
    top, bottom = _EDGE * page_height, (1 - _EDGE) * page_height
    is_body = [box.bottom >= top and box.top <= bottom for box in boxes]
    if not any(is_body):
        return list(range(len(boxes)))
    first = is_body.index(True)
    last = len(boxes) - 1 - is_body[::-1].index(True)
    body = around(boxes[first : last + 1])
    footers = [index for index in range(first) if boxes[index].top >= body.bottom]
    others = [box for index, box in enumerate(boxes[: last + 1]) if index not in footers]
    highest = min(box.top for box in others)
    headers = [index for index in range(last + 1, len(boxes)) if boxes[index].bottom <= highest]
    if not headers and not footers:
        return list(range(len(boxes)))
    moved = {*headers, *footers}
    return [*headers, *(index for index in range(len(boxes)) if index not in moved), *footers]


def _goes_back(boxes: Sequence[Box]) -> bool:
    """Whether a line stands above the one before it in the same column."""
    return any(
        after.bottom <= before.top and _is_in_column(before, after)
        for before, after in pairwise(boxes)
    )


def _is_in_column(one: Box, other: Box) -> bool:
    return shared_width(one, other) > _SAME_COLUMN * min(one.width, other.width)


def _blocks(
    boxes: Sequence[Box], sequence: Sequence[int], *, wide: Container[int]
) -> list[list[int]]:
    """Divide the lines where one does not stand directly below the one before it.

    Narrow lines, such as labels in a figure, stay with the line before them.
    """
    blocks: list[list[int]] = []
    before: Box | None = None
    for index in sequence:
        box = boxes[index]
        if index in wide:
            if before is None or not _goes_on(before, box):
                blocks.append([])
            before = box
        elif not blocks:
            blocks.append([])
        blocks[-1].append(index)
    return blocks


def _goes_on(before: Box, box: Box) -> bool:
    if shared_height(before, box) > _SAME_ROW * min(before.height, box.height):
        return True
    gap = box.top - before.bottom
    height = max(box.height, before.height)
    return -0.5 * height < gap < _BLOCK_GAP * height and shared_width(before, box) > 0


def _sorted(boxes: Sequence[Box], blocks: list[list[int]], wide: Container[int]) -> list[list[int]]:
    """Sort blocks by what must come first; blocks without relation keep the order of the file."""
    outlines = [
        around([boxes[line] for line in block if line in wide] or [boxes[block[0]]])
        for block in blocks
    ]
    followers: list[list[int]] = [[] for _ in blocks]
    waits_for = [0] * len(blocks)
    for one, first in enumerate(outlines):
        for other, second in enumerate(outlines):
            if one != other and _comes_first(first, second, outlines):
                followers[one].append(other)
                waits_for[other] += 1
    free = [index for index, count in enumerate(waits_for) if count == 0]
    done: list[int] = []
    left = set(range(len(blocks)))
    while left:
        # Where blocks overlap, a circle of relations is broken at its first block.
        index = heapq.heappop(free) if free else min(left)
        if index not in left:
            continue
        left.remove(index)
        done.append(index)
        for follower in followers[index]:
            waits_for[follower] -= 1
            if waits_for[follower] == 0:
                heapq.heappush(free, follower)
    return [blocks[index] for index in done]


def _comes_first(first: Box, second: Box, outlines: Sequence[Box]) -> bool:
    if shared_width(first, second) > 0:
        return first.bottom <= second.top + 0.2 * min(first.height, second.height)
    if first.right > second.left:
        return False
    # Left of it, unless a block between them belongs above one and below the other.
    return not any(
        shared_width(first, other) > 0
        and shared_width(second, other) > 0
        and (first.bottom <= other.top < second.top or second.bottom <= other.top < first.top)
        for other in outlines
    )
