"""The lines of a page, each with clean text and its box."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from pipeline.ingest import text
from pipeline.ingest.extractors.pdf import repairs
from pipeline.ingest.extractors.pdf.geometry import Box, around
from pipeline.ingest.extractors.pdf.pdfium import DIVISION, PdfiumPage
from pipeline.ingest.extractors.pdf.repairs import Signs

_LINES_MAX: Final = 20_000  # with boxes; an ordinary page has 60

# Fractions of the height of a line.
_NO_GAP: Final = 0.15
_OVERLAP: Final = 0.25
_PART_GAP: Final = 0.5
_SAME_PLACE: Final = 0.3
_SAME_ROW: Final = 0.4
_TURN: Final = 2
_UPRIGHT: Final = 2  # height to width of text that runs upwards or downwards


class PageLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a page.

    Attributes:
        text: clean, not empty.
        box: around its ink, or None if it is not known.
        is_divided: its last word ends in the next line.
        parts: the boxes of its parts of one style, from left to right.
        start: PDFium's index of its first character.
        end: PDFium's index after its last character.
    """

    text: str
    box: Box | None
    is_divided: bool = False
    parts: Sequence[Box] = ()
    start: int = 0
    end: int = 0

    @property
    def is_upright(self) -> bool:
        """Whether the line runs upwards or downwards."""
        return (
            self.box is not None
            and len(self.text) > 1
            and self.box.bottom - self.box.top > _UPRIGHT * (self.box.right - self.box.left)
        )


def read(page: PdfiumPage, characters: str) -> list[PageLine]:
    """Return the lines of `page` in PDFium's order, each once.

    Args:
        page: the page.
        characters: what `PdfiumPage.characters` returned.
    """
    return list(_printed_once(_joined(page, _divided(page, characters))))


def cut(
    page: PdfiumPage, characters: str, line: PageLine, place: float
) -> tuple[PageLine | None, PageLine | None]:
    """Divide a line where its first character right of `place` starts; a side may be empty."""
    boxes = page.character_boxes(line.start, line.end - line.start)
    middle = next(
        (
            line.start + index
            for index, box in enumerate(boxes)
            if box.left >= place and box.right > box.left
        ),
        line.end,
    )
    signs = Signs.of(characters)
    left, right = characters[line.start : middle], characters[middle : line.end]
    return (
        _line(page, left, line.start, signs=signs, is_clean=False),
        _line(page, right, middle, signs=signs, is_clean=False, is_divided=line.is_divided),
    )


def _divided(page: PdfiumPage, characters: str) -> Iterator[PageLine]:
    signs = Signs.of(characters)
    is_clean = text.is_clean(characters.replace("\r\n", "\n").replace(DIVISION, "\n"))
    start = count = 0
    for row in characters.split("\r\n"):
        ends = row.split(DIVISION)
        for number, raw in enumerate(ends, start=1):
            if raw and not raw.isspace():
                count += 1
                line = _line(
                    page,
                    raw,
                    start,
                    signs=signs,
                    is_clean=is_clean,
                    is_divided=number < len(ends),
                    has_box=count <= _LINES_MAX,
                )
                if line is not None and _turns_back(line.parts):
                    yield from _turned(page, characters, line, signs=signs)
                elif line is not None:
                    yield line
            start += len(raw) + 1
        start += 1


def _line(
    page: PdfiumPage,
    raw: str,
    start: int,
    *,
    signs: Signs,
    is_clean: bool,
    is_divided: bool = False,
    has_box: bool = True,
) -> PageLine | None:
    """Return the line of the characters `raw` from index `start`, or None if it has no text."""
    parts = page.boxes(start, len(raw)) if has_box else []
    if parts and all(part.bottom - part.top <= 0 for part in parts):
        # A font that is neither in the file nor installed has no ink.
        parts = [box for box in page.character_boxes(start, len(raw)) if box.height > 0]
    content = raw
    if parts and (signs.are_in(raw) or (_overlap(parts) and repairs.is_doubled(raw))):
        places = page.character_boxes(start, len(raw))
        content = repairs.mend(list(zip(raw, places, strict=True)))
    if not is_clean:
        # A line end inside of a line is a glyph without a character.
        content = text.clean(content.replace("\r", "").replace("\n", ""))
    content = " ".join(content.split())
    if not content:
        return None
    return PageLine(
        text=content,
        box=around(parts) if parts else None,
        is_divided=is_divided,
        parts=parts,
        start=start + len(raw) - len(raw.lstrip()),
        end=start + len(raw.rstrip()),
    )


def _overlap(parts: Sequence[Box]) -> bool:
    return any(
        after.left < before.right - _OVERLAP * (after.bottom - after.top)
        for before, after in pairwise(parts)
    )


def _turns_back(parts: Sequence[Box]) -> bool:
    """Whether PDFium takes several lines for one, as it does where they are a little apart."""
    return any(_is_turn(before, after) for before, after in pairwise(parts))


def _is_turn(before: Box, after: Box) -> bool:
    height = before.bottom - before.top
    return (
        after.left < before.left - _TURN * height
        and after.bottom > before.bottom + _OVERLAP * height
    )


def _turned(
    page: PdfiumPage, characters: str, line: PageLine, *, signs: Signs
) -> Iterator[PageLine]:
    """Divide a line where its text turns back to the left and down."""
    boxes = page.character_boxes(line.start, line.end - line.start)
    printed = [index for index, box in enumerate(boxes) if box.right > box.left]
    turns = [index for before, index in pairwise(printed) if _is_turn(boxes[before], boxes[index])]
    for first, end in pairwise([0, *turns, len(boxes)]):
        raw = characters[line.start + first : line.start + end]
        is_divided = line.is_divided and end == len(boxes)
        part = _line(
            page, raw, line.start + first, signs=signs, is_clean=False, is_divided=is_divided
        )
        if part is not None:
            yield part


def _joined(page: PdfiumPage, lines: Iterable[PageLine]) -> Iterator[PageLine]:
    """Join the parts of a line that PDFium divides at an exponent or an index."""
    last: PageLine | None = None
    for line in lines:
        if last is None:
            last = line
        elif (separator := _separator(page, last, line)) is None:
            yield last
            last = line
        else:
            last = PageLine(
                text=last.text + separator + line.text,
                box=around([box for box in (last.box, line.box) if box is not None]),
                is_divided=line.is_divided,
                parts=[*last.parts, *line.parts],
                start=last.start,
                end=line.end,
            )
    if last is not None:
        yield last


def _separator(page: PdfiumPage, before: PageLine, after: PageLine) -> str | None:
    """Return what stands between two parts of one line, or None for two lines."""
    one, other = before.box, after.box
    if one is None or other is None or before.is_divided:
        return None
    height = min(one.bottom - one.top, other.bottom - other.top)
    if not -_OVERLAP * height < other.left - one.right < _PART_GAP * height:
        return None
    if min(one.bottom, other.bottom) - max(one.top, other.top) < _SAME_ROW * height:
        return None
    if before.is_upright or after.is_upright:
        return None
    # Ink does not show a gap: a narrow letter has much white beside it.
    (last,), (first,) = (
        page.character_boxes(before.end - 1, 1),
        page.character_boxes(after.start, 1),
    )
    return "" if first.left - last.right < _NO_GAP * min(first.height, last.height) else " "


def _printed_once(lines: Iterable[PageLine]) -> Iterator[PageLine]:
    """Leave out a line that is printed again at the same place."""
    printed: dict[str, Box] = {}
    for line in lines:
        if line.box is not None:
            place = printed.get(line.text)
            tolerance = _SAME_PLACE * (line.box.bottom - line.box.top)
            if (
                place is not None
                and abs(place.left - line.box.left) < tolerance
                and abs(place.top - line.box.top) < tolerance
            ):
                continue
            printed[line.text] = line.box
        yield line
