"""The words of a page with their places."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from pipeline.ingest import text
from pipeline.ingest.extractors.pdf.geometry import Box, around
from pipeline.ingest.extractors.pdf.pdfium import DIVISION, PdfiumPage

_WORD: Final = re.compile(rf"[^\s\0{DIVISION}]+{DIVISION}?")
_CHARACTERS_PER_WORD: Final = 10

# Fractions of the height of a character.
_UPRIGHT: Final = 1.5
_SAME_LINE: Final = 0.5


class Word(NamedTuple):
    """A word, or the part of a word in one cell.

    Attributes:
        text: clean, not empty.
        box: as wide as its characters, as high as their font.
        characters: the box of each character.
    """

    text: str
    box: Box
    characters: Sequence[Box]

    @property
    def middle(self) -> float:
        """The x of its middle."""
        return (self.box.left + self.box.right) / 2

    @property
    def height(self) -> float:
        return self.box.height


class WordLine(NamedTuple):
    """Words beside each other, from left to right."""

    words: Sequence[Word]
    box: Box


def words_of(page: PdfiumPage, *, words_max: int) -> list[Word]:
    """Return the words of a page that run from left to right, in PDFium's order."""
    characters = page.characters(longest=_CHARACTERS_PER_WORD * words_max)
    boxes = page.character_boxes(0, len(characters))
    words = []
    for match in _WORD.finditer(characters):
        parts = boxes[match.start() : match.end()]
        word = _word(match[0].replace(DIVISION, "-"), parts)
        if word is not None:
            words.append(word)
            if len(words) == words_max:
                break
    return words


def _word(content: str, boxes: Sequence[Box]) -> Word | None:
    box = around(boxes)
    if box.height <= 0 or box.width <= 0:
        return None
    if len(content) > 1 and box.height > _UPRIGHT * max(each.height for each in boxes):
        return None  # runs upwards or downwards
    cleaned = text.clean(content)
    return Word(cleaned, box, boxes) if cleaned else None


def divided(word: Word, places: Sequence[float]) -> Iterator[Word]:
    """Yield the parts of a word that are left and right of `places`, which are in order."""
    inner = [place for place in places if word.box.left < place < word.box.right]
    if not inner or len(word.text) != len(word.characters):
        yield word
        return
    start = 0
    for place in [*inner, word.box.right + 1]:
        end = start
        while end < len(word.characters) and _middle(word.characters[end]) < place:
            end += 1
        if end > start:
            part = word.characters[start:end]
            yield Word(word.text[start:end], around(part), part)
        start = end


def _middle(box: Box) -> float:
    return (box.left + box.right) / 2


def lines_of(words: Sequence[Word]) -> list[WordLine]:
    """Return the lines that words form, from top to bottom."""
    lines: list[list[Word]] = []
    tops: list[tuple[float, float]] = []
    for word in sorted(words, key=lambda word: (word.box.top + word.box.bottom, word.box.left)):
        middle = (word.box.top + word.box.bottom) / 2
        if lines:
            top, bottom = tops[-1]
            shared = min(bottom, word.box.bottom) - max(top, word.box.top)
            if shared >= _SAME_LINE * min(bottom - top, word.height) and top < middle < bottom:
                lines[-1].append(word)
                continue
        lines.append([word])
        tops.append((word.box.top, word.box.bottom))
    return [
        WordLine(ordered, around([word.box for word in ordered]))
        for ordered in (sorted(line, key=lambda word: word.box.left) for line in lines)
    ]


def text_of(words: Sequence[Word]) -> str:
    """Return the text of words, line by line."""
    return "\n".join(" ".join(word.text for word in line.words) for line in lines_of(words))
