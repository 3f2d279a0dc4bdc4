"""Groups the sentences of a page into passages: parts of about the same length, for search.

A passage is a part of the page's text, so offsets are enough to store it. Neighbouring passages
share their last and first sentences.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

CHARACTERS_OF_TOKEN: Final = 4
"""Of scripts with letters; models for text cut their words into tokens of about this length."""

SHORTEST: Final = 6
"""Characters of the shortest passage; less says nothing without its neighbours."""

# Scripts without spaces, whose characters are tokens of their own: Chinese, Japanese, Korean.
_WIDE: Final = re.compile(
    "[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
_LETTER_OR_DIGIT: Final = re.compile(r"[^\W_]")
_SPACE: Final = re.compile(r"\s*")

_LINE_MIN: Final = 40  # characters: a page of short lines would have a million units
_TELLING: Final = 40  # characters: a longer text with a letter says something
_LETTERS_MIN: Final = 3

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long passages are.

    Attributes:
        tokens: of a passage, as `tokens_of` estimates them.
        overlap: tokens that a passage repeats from the one before it, at most.
    """

    tokens: int
    overlap: int

    @property
    def most(self) -> int:
        """Tokens of the longest passage: one with a remainder that is too short for its own."""
        return self.tokens * 6 // 5

    @property
    def least(self) -> int:
        """Tokens below which a passage is joined to its neighbour, if there is one."""
        return self.tokens // 5


class TextPassage(NamedTuple):
    """A passage: its first character in the page's text, and the one after its last."""

    start: int
    end: int
    tokens: int


def tokens_of(text: str) -> int:
    """Return about how many tokens a model makes of a text; at least 1."""
    wide = 0 if text.isascii() else len(_WIDE.findall(text))
    return wide + max(1 - wide, -(-(len(text) - wide) // CHARACTERS_OF_TOKEN))


def passages_of(
    text: str, *, sentences: Sequence[Range], running: Sequence[Range], budget: Budget
) -> list[TextPassage]:
    """Return the passages of a page, in order.

    Every word outside of `running` is in a passage, except where there is next to nothing: a part of
    less than `SHORTEST` characters, or without a word, becomes part of a neighbour, and is left out
    if there is none. No passage has more than `budget.most` tokens, except one with such a part.

    Args:
        text: of the page.
        sentences: start and end of each, in order, not overlapping; what they do not cover is taken
            by its lines.
        running: start and end of headers and footers, in order.
        budget: how long passages are.
    """
    measure = Measure(text)
    found = [
        group
        for start, end in _between(running, len(text))
        for group in _grouped(
            [
                piece
                for unit in _units(text, sentences, start, end)
                for piece in _pieces(text, *unit, measure=measure, budget=budget)
            ],
            measure=measure,
            budget=budget,
        )
    ]
    return [
        TextPassage(start, end, measure(start, end))
        for start, end in _without_scraps(text, found, measure=measure, budget=budget)
    ]


class Measure:
    """Estimates the tokens of parts of one text."""

    def __init__(self, text: str) -> None:
        self._text = text if not text.isascii() and _WIDE.search(text) else None

    def __call__(self, start: int, end: int) -> int:
        if self._text is not None:
            return tokens_of(self._text[start:end])
        return max(1, -(-(end - start) // CHARACTERS_OF_TOKEN))


def _between(running: Sequence[Range], size: int) -> Iterator[Range]:
    """Yield the parts of the text that are in no header or footer."""
    position = 0
    for start, end in running:
        if start > position:
            yield position, start
        position = max(position, end)
    if position < size:
        yield position, size


def _units(text: str, sentences: Sequence[Range], start: int, end: int) -> Iterator[Range]:
    """Yield the sentences of a part of the text, and the lines where there are none."""
    position = start
    index = bisect_right(sentences, start, key=lambda sentence: sentence[1])
    while index < len(sentences) and sentences[index][0] < end:
        first, last = max(start, sentences[index][0]), min(end, sentences[index][1])
        yield from _lines(text, position, first)
        yield from _stripped(text, first, last)
        position = last
        index += 1
    yield from _lines(text, position, end)


def _lines(text: str, start: int, end: int) -> Iterator[Range]:
    """Yield lines; several of them together if they are short."""
    while start < end:
        found = text.find("\n", min(start + _LINE_MIN, end), end)
        line_end = end if found == -1 else found
        yield from _stripped(text, start, line_end)
        start = line_end + 1


def _stripped(text: str, start: int, end: int) -> Iterator[Range]:
    content = text[start:end]
    inner = content.strip()
    if inner:
        first = start + content.index(inner[0])
        yield first, first + len(inner)


def _pieces(
    text: str, start: int, end: int, *, measure: Measure, budget: Budget
) -> Iterator[Range]:
    """Yield a sentence, in parts of about the same length if it is too long."""
    window = CHARACTERS_OF_TOKEN * budget.tokens + 1
    if end - start <= budget.tokens:
        yield start, end
        return
    parts = -(-measure(start, end) // budget.tokens)
    # Measured up to the first character that is too much: the rest may be a million characters long.
    while measure(start, min(end, start + window)) > budget.tokens:
        size = min(window, -(-(end - start) // max(2, parts)))
        parts -= 1
        while (tokens := measure(start, start + size)) > budget.tokens:
            size = max(1, min(size - 1, size * budget.tokens // tokens))
        cut = max(text.rfind(space, start + size // 2, start + size + 1) for space in " \n")
        cut = start + size if cut == -1 else cut
        yield from _stripped(text, start, cut)
        space = _SPACE.match(text, cut, end)
        start = space.end() if space else cut
    if start < end:
        yield start, end


def _grouped(units: Sequence[Range], *, measure: Measure, budget: Budget) -> Iterator[Range]:
    """Yield groups of neighbouring units, each with the last units of the group before it."""
    if not units:
        return
    closed: Range | None = None
    first = fresh = 0  # the first unit of the group, and the first that no earlier group has
    for index in range(1, len(units)):
        group = measure(units[first][0], units[index - 1][1])
        longer = measure(units[first][0], units[index][1])
        if longer > budget.tokens and (group >= budget.least or longer > budget.most):
            if closed is not None:
                yield closed
            closed = units[first][0], units[index - 1][1]
            first = fresh = index
            while (
                first > 0
                and measure(units[first - 1][0], units[index - 1][1]) <= budget.overlap
                and measure(units[first - 1][0], units[index][1]) <= budget.tokens
            ):
                first -= 1
    end = units[-1][1]
    if closed is not None:
        if measure(units[fresh][0], end) < budget.least and measure(closed[0], end) <= budget.most:
            yield closed[0], end
            return
        yield closed
    yield units[first][0], end


def _without_scraps(
    text: str, found: Sequence[Range], *, measure: Measure, budget: Budget
) -> list[Range]:
    """Join what is too little for a passage to a neighbour, across a header or footer; or drop it."""
    kept: list[Range] = []
    held: Range | None = None  # waits for the next passage
    for start, end in found:
        if not _says_something(text, start, end):
            if kept and measure(kept[-1][0], end) <= 2 * budget.tokens:
                kept[-1] = kept[-1][0], end
            else:
                held = held[0] if held else start, end
        elif held is not None and measure(held[0], end) <= 2 * budget.tokens:
            kept.append((held[0], end))
            held = None
        else:
            kept.append((start, end))
            held = None
    return kept


def _says_something(text: str, start: int, end: int) -> bool:
    """Return whether a text has a word of some letters, or a number, and is not too short."""
    if end - start < SHORTEST or not _LETTER_OR_DIGIT.search(text, start, end):
        return False
    if end - start > _TELLING:
        return True
    content = text[start:end]
    return sum(map(str.isalpha, content)) >= _LETTERS_MIN or any(map(str.isdigit, content))
