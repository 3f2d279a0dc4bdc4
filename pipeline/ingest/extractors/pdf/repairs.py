"""Mends one line by the places of its characters.

Reading these places costs a call for each character: a line is mended only if its text or its
boxes show a sign of the fault.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box, shared_width

Character = tuple[str, Box]
"""A character and its box, which is as wide as its advance. An added space has no width."""

# Fractions of the height of a character.
_SAME_PLACE: Final = 0.15  # fake bold moves a letter by less
_NO_GAP: Final = 0.1  # less than any space between words
_WORD_GAP: Final = 0.2
_LETTER_GAP_MAX: Final = 0.9
_PRINTS_MAX: Final = 4
_MANY: Final = 0.4
_TWICE: Final = re.compile(r"(\S)(?= ?\1)")
_TWICE_MIN: Final = 0.1
# A gap between words is that much wider than the gap between the letters of spaced text.
_WORD_TO_LETTER_GAP: Final = 1.5
_LETTERS_OF_SPACED_TEXT: Final = 0.75

_RIGHT_TO_LEFT: Final = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]"
# Diacritics that are characters of their own, and the marks that combine with a letter.
_ACCENTS: Final = {
    "\u0060": "\u0300",  # grave
    "\u00b4": "\u0301",  # acute
    "\u02c6": "\u0302",  # circumflex
    "\u02dc": "\u0303",  # tilde
    "\u00af": "\u0304",  # macron
    "\u02d8": "\u0306",  # breve
    "\u02d9": "\u0307",  # dot above
    "\u00a8": "\u0308",  # diaeresis
    "\u02da": "\u030a",  # ring above
    "\u02dd": "\u030b",  # double acute
    "\u02c7": "\u030c",  # caron
    "\u00b8": "\u0327",  # cedilla
    "\u02db": "\u0328",  # ogonek
}

_SPACED_LETTERS: Final = re.compile(r"(?<!\S)\S{1,2}(?: \S{1,2}){3,}(?!\S)")
_SHORT: Final = 2
_WORD: Final = re.compile(r"\S{2,}")
_SPACES_OF_SPACED_TEXT: Final = 4  # or fewer characters for each space; prose has six
_GLUED_WORDS: Final = re.compile(r"[A-Za-z\u00c0-\u024f.,;:]{28}")
_GLUED_MIN: Final = 28
_RIGHT_TO_LEFT_WORDS: Final = re.compile(f"{_RIGHT_TO_LEFT}+(?: +{_RIGHT_TO_LEFT}+)+")
_RIGHT_TO_LEFT_LETTER: Final = re.compile(_RIGHT_TO_LEFT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Signs:
    """Whether a page may have lines to mend, as far as its characters show; cheap to look for."""

    has_long_words: bool
    has_accents: bool
    has_right_to_left: bool

    @classmethod
    def of(cls, characters: str) -> "Signs":
        return cls(
            has_long_words=max(map(len, characters.split()), default=0) >= _GLUED_MIN,
            has_accents=any(accent in characters for accent in _ACCENTS),
            has_right_to_left=not characters.isascii()
            and _RIGHT_TO_LEFT_LETTER.search(characters) is not None,
        )

    def are_in(self, line: str) -> bool:
        """Whether a line of the page may need to be mended."""
        return (
            (
                len(line) < _SPACES_OF_SPACED_TEXT * line.count(" ")
                and _SPACED_LETTERS.search(line) is not None
            )
            or (self.has_long_words and _GLUED_WORDS.search(line) is not None)
            or (self.has_accents and any(accent in line for accent in _ACCENTS))
            or (self.has_right_to_left and _RIGHT_TO_LEFT_WORDS.search(line) is not None)
        )


def is_doubled(text: str) -> bool:
    """Whether letters of a line follow each other twice so often that it is printed twice."""
    return len(_TWICE.findall(text)) >= _TWICE_MIN * len(text)


def mend(characters: Sequence[Character]) -> str:
    """Return the text of a line, printed once, with accents on their letters and right spaces."""
    mended = _once(characters)
    mended = _with_accents(mended)
    mended = _without_added_spaces(mended)
    mended = _without_spaces_between_letters(mended)
    mended = _with_spaces_between_words(mended)
    return _with_words_in_logical_order(mended)


def _once(characters: Sequence[Character]) -> list[Character]:
    """Leave out the repetitions of letters that are printed several times to look bold."""
    if not is_doubled("".join(character for character, _ in characters)):
        return list(characters)
    printed = [pair for pair in characters if not pair[0].isspace()]
    repeated = [
        any(_is_same(pair, other) for other in printed[max(0, index - _PRINTS_MAX) : index])
        for index, pair in enumerate(printed)
    ]
    if not any(repeated):
        return list(characters)
    # The two letters of a ligature have one box, but their neighbours are not repeated.
    is_repetition = [
        is_one and sum(near := repeated[max(0, index - 3) : index + 4]) > _MANY * len(near)
        for index, is_one in enumerate(repeated)
    ]
    answers = iter(is_repetition)
    kept: list[Character] = []
    for pair in characters:
        if pair[0].isspace():
            if kept and kept[-1][0].isspace():
                continue
        elif next(answers):
            continue
        kept.append(pair)
    return kept


def _is_same(one: Character, other: Character) -> bool:
    (letter, box), (other_letter, place) = one, other
    # "ll" is two letters, each as narrow as the shift of a wide one.
    tolerance = min(_SAME_PLACE * box.height, 0.5 * box.width)
    return (
        letter == other_letter
        and abs(box.left - place.left) < tolerance
        and abs(box.top - place.top) < _SAME_PLACE * box.height
    )


def _with_accents(characters: Sequence[Character]) -> list[Character]:
    """Combine a letter with the accent that is printed over it, before or after it."""
    combined: list[Character] = []
    accent: tuple[str, Box] | None = None
    for character, box in characters:
        if accent is not None and character != " ":
            mark, place = accent
            accent = None
            if character.isalpha() and _is_over(place, box):
                while combined[-1][0] == " ":
                    combined.pop()
                combined[-1] = (unicodedata.normalize("NFC", character + mark), box)
                continue
        mark = _ACCENTS.get(character, "")
        if mark:
            letter = next((pair for pair in reversed(combined) if pair[0] != " "), None)
            if letter is not None and letter[0].isalpha() and _is_over(box, letter[1]):
                while combined[-1][0] == " ":
                    combined.pop()
                combined[-1] = (unicodedata.normalize("NFC", letter[0] + mark), letter[1])
                continue
            accent = mark, box
        combined.append((character, box))
    return combined


def _is_over(accent: Box, letter: Box) -> bool:
    return shared_width(accent, letter) > 0.5 * min(accent.width, letter.width)


def _without_added_spaces(characters: Sequence[Character]) -> list[Character]:
    """Remove spaces that PDFium adds where the size changes, as before an exponent."""
    kept: list[Character] = []
    for index, (character, box) in enumerate(characters):
        if character == " " and box.width == 0 and kept and index + 1 < len(characters):
            before, after = kept[-1][1], characters[index + 1][1]
            if abs(_gap(before, box, after)) < _NO_GAP * min(before.height, after.height):
                continue
        kept.append((character, box))
    return kept


def _gap(before: Box, space: Box, after: Box) -> float:
    # An added space stands at one end of the gap. Ink may reach beyond the advance.
    return after.left - min(before.right, space.left)


def _without_spaces_between_letters(characters: Sequence[Character]) -> list[Character]:
    """Remove the gaps between spaced letters; wider gaps stay spaces."""
    text = "".join(character for character, _ in characters)
    if len(text) != len(characters):  # a letter with a mark that has no character of its own
        return list(characters)
    boxes = [box for _, box in characters]
    gaps = {
        index: _gap(boxes[index - 1], boxes[index], boxes[index + 1])
        for index in range(1, len(text) - 1)
        if text[index] == " "
    }
    dropped: set[int] = set()
    for match in _SPACED_LETTERS.finditer(text):
        letters = match[0].replace(" ", "")
        if sum(map(str.isalpha, letters)) < _LETTERS_OF_SPACED_TEXT * len(letters):
            continue
        inside = range(*match.span())
        height = max(boxes[index].height for index in inside)
        narrow = median(gap for index, gap in gaps.items() if index in inside)
        if not 0 < narrow < _LETTER_GAP_MAX * height:
            continue
        if _is_gap_between_words(narrow, text, boxes, gaps, run=match.span()):
            continue
        limit = max(_WORD_TO_LETTER_GAP * narrow, narrow + _NO_GAP * height)
        dropped.update(
            index
            for index, gap in gaps.items()
            if index in inside and gap < limit and boxes[index].width == 0
        )
    return [pair for index, pair in enumerate(characters) if index not in dropped]


def _is_gap_between_words(
    gap: float,
    text: str,
    boxes: Sequence[Box],
    gaps: Mapping[int, float],
    *,
    run: tuple[int, int],
) -> bool:
    """Whether the gaps of a run of short parts are as wide as those beside words: "an S in s"."""
    beside_words: list[float] = []
    for word in _WORD.finditer(text):
        first, end = word.span()
        inner = median(
            boxes[index + 1].left - boxes[index].right for index in range(first, end - 1)
        )
        if inner * _WORD_TO_LETTER_GAP < gap:
            if run[0] <= first < run[1]:
                return True
            if end - first > _SHORT:
                beside_words += [gaps[index] for index in (first - 1, end) if index in gaps]
    return bool(beside_words) and gap * _WORD_TO_LETTER_GAP > median(beside_words)


def _with_spaces_between_words(characters: Sequence[Character]) -> list[Character]:
    """Add the spaces that are only gaps, in a line of words that are too long."""
    text = "".join(character for character, _ in characters)
    if _GLUED_WORDS.search(text) is None:
        return list(characters)
    spaced: list[Character] = []
    for character, box in characters:
        if spaced and not character.isspace() and not spaced[-1][0].isspace():
            before = spaced[-1][1]
            if box.left - before.right > _WORD_GAP * min(box.height, before.height):
                spaced.append((" ", box))
        spaced.append((character, box))
    return spaced


def _with_words_in_logical_order(characters: Sequence[Character]) -> str:
    """Put right-to-left words in order that PDFium leaves as they stand in a left-to-right line."""
    text = "".join(character for character, _ in characters)
    if len(text) != len(characters):
        return text
    for match in _RIGHT_TO_LEFT_WORDS.finditer(text):
        start, end = match.span()
        if characters[start][1].left < characters[end - 1][1].left:
            words = " ".join(reversed(match[0].split()))
            text = text[:start] + words.ljust(end - start) + text[end:]
    return text
