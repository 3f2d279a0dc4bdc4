"""Puts form values and annotations where they stand among the lines of a page; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pipeline.ingest.extractors.extractor import Line, Span, SpanKind

# A value stands on a line if they share half of the height of the lower one.
_SHARED_HEIGHT_MIN: Final = 0.5
# A frame of a field begins a little before the end of its label.
_OVERLAP_POINTS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Text that is on the page but not in its content; the box is as that of a line."""

    kind: SpanKind
    text: str
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, kw_only=True)
class PlacedText:
    """The text of a page, with the places of its lines and its marked parts."""

    text: str = ""
    lines: tuple[Line, ...] = ()
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Insertion:
    """An addition and its place: at the end of a line, or on lines of its own."""

    addition: Addition
    offset: int
    extends: int | None = None  # index of the line that the addition ends


def placed(page: PlacedText, additions: Iterable[Addition]) -> PlacedText:
    """Return the page with the additions, each marked by a span.

    An addition ends the line that it stands on; otherwise it follows the line above it. A text that
    is already on a line at its place is left out.
    """
    new = [each for each in additions if not _is_there(each, page)]
    if not new:
        return page
    return _rebuilt(page, sorted((_insertion(each, page) for each in new), key=_order))


def _order(insertion: _Insertion) -> tuple[int, bool, int, int]:
    """At one offset, what ends a line goes first, from left to right; the rest from the top."""
    addition = insertion.addition
    is_own_line = insertion.extends is None
    return (
        insertion.offset,
        is_own_line,
        addition.top if is_own_line else addition.left,
        addition.left,
    )


def _is_there(addition: Addition, page: PlacedText) -> bool:
    words = " ".join(addition.text.split())
    return any(
        words in " ".join(page.text[line.start : line.end].split())
        for line in page.lines
        if _shares_height(line, addition)
        and line.left < addition.right
        and line.right > addition.left
    )


def _insertion(addition: Addition, page: PlacedText) -> _Insertion:
    if not page.lines:
        return _Insertion(addition=addition, offset=len(page.text))
    if "\n" not in addition.text:
        labels = [
            (line.right, index)
            for index, line in enumerate(page.lines)
            if line.right <= addition.left + _OVERLAP_POINTS and _shares_height(line, addition)
        ]
        if labels:
            _, index = max(labels)
            return _Insertion(addition=addition, offset=page.lines[index].end, extends=index)
    above = [
        (line.bottom, line.end)
        for line in page.lines
        if line.bottom <= addition.top + _OVERLAP_POINTS
        and line.left < addition.right
        and line.right > addition.left
    ] or [(line.bottom, line.end) for line in page.lines if line.bottom <= addition.top]
    return _Insertion(addition=addition, offset=max(above)[1] if above else 0)


def _shares_height(line: Line, addition: Addition) -> bool:
    shared = min(line.bottom, addition.bottom) - max(line.top, addition.top)
    lower = min(line.bottom - line.top, addition.bottom - addition.top)
    return lower > 0 and shared >= _SHARED_HEIGHT_MIN * lower


def _rebuilt(page: PlacedText, insertions: Sequence[_Insertion]) -> PlacedText:
    """Return the page with the insertions, which are in the order of their offsets."""
    parts: list[str] = []
    spans: list[Span] = []
    own_lines: list[Line] = []
    ends: dict[int, tuple[int, int]] = {}  # of a line: its new end and right edge
    shifts: list[tuple[int, int]] = []  # offset in the old text, and what is inserted up to it
    taken = inserted = 0
    for each in insertions:
        parts.append(page.text[taken : each.offset])
        taken = each.offset
        rest = page.text[taken : taken + 1]
        before, after = _separators(each, last="".join(parts[-2:])[-1:], rest=rest)
        start = each.offset + inserted + len(before)
        end = start + len(each.addition.text)
        parts.append(before + each.addition.text + after)
        spans.append(Span(each.addition.kind, start, end))
        if each.extends is not None:
            ends[each.extends] = (end, each.addition.right)
        else:
            own_lines += _lines_of(each.addition, start)
        inserted += len(before) + len(each.addition.text) + len(after)
        shifts.append((each.offset, inserted))
    parts.append(page.text[taken:])

    def moved(offset: int, *, is_end: bool) -> int:
        """Return the new offset of a place in the old text; an end stays before an insertion."""
        shift = 0
        for at, total in shifts:
            if at < offset or (at == offset and not is_end):
                shift = total
        return offset + shift

    lines = []
    for index, line in enumerate(page.lines):
        end, right = ends.get(index, (moved(line.end, is_end=True), line.right))
        lines.append(
            Line(
                moved(line.start, is_end=False),
                end,
                line.left,
                line.top,
                max(line.right, right),
                line.bottom,
            )
        )
    kept = [
        Span(span.kind, moved(span.start, is_end=False), moved(span.end, is_end=True))
        for span in page.spans
    ]
    return replace(
        page,
        text="".join(parts),
        lines=tuple(sorted([*lines, *own_lines], key=lambda line: (line.start, line.end))),
        spans=tuple(sorted([*kept, *spans], key=lambda span: (span.start, span.end))),
    )


def _separators(insertion: _Insertion, *, last: str, rest: str) -> tuple[str, str]:
    """Return what goes before and after an inserted text, between the characters beside it."""
    if insertion.extends is not None:
        return " ", ""
    return (
        "\n" if last not in {"", "\n"} else "",
        "\n" if rest not in {"", "\n"} else "",
    )


def _lines_of(addition: Addition, start: int) -> list[Line]:
    lines = []
    for words in addition.text.split("\n"):
        if words:
            lines.append(
                Line(
                    start,
                    start + len(words),
                    addition.left,
                    addition.top,
                    addition.right,
                    addition.bottom,
                )
            )
        start += len(words) + 1
    return lines
