"""Signs that an engine has misread the text of a page; pure.

An engine maps the glyphs of a font to characters. Without a usable map it yields glyph names,
control characters, private characters, or letters that are all shifted by a constant. The engine
reports no error, and nobody can read the text.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Sign(StrEnum):
    """What is wrong with a text; each sign asks for the opinion of the other engine."""

    UNMAPPED = "unmapped characters"
    CIPHER = "letters that form no words"
    SPACES_LOST = "words without spaces"
    LETTERS_APART = "letters spaced apart"
    NOTHING_READ = "the page shows text and none was read"
    CUT = "text cut at a limit of the engine"


# Ordinary pages have up to three private characters (bullets) in a hundred.
_UNMAPPED_ASKS: Final = 0.05
# A third of garbage hides what the rest means; recognising the page loses nothing.
_UNMAPPED_IS_GARBAGE: Final = 0.3
# In European languages at least 34 % of the letters are vowels, and of the letters that are
# neighbours at least 60 % are a vowel and a consonant. A shift of the alphabet leaves less than 31 %
# and 53 %, except two shifts that leave as many vowels.
_VOWELS_MIN: Final = 0.31
_ALTERNATION_MIN: Final = 0.53
_LETTERS_FOR_STATISTICS: Final = 40
_LETTERS_TO_CONFIRM: Final = 5
# Finnish, with the longest words of Europe, has eight letters per gap.
_LETTERS_PER_GAP_MAX: Final = 16
_LETTERS_FOR_SPACING: Final = 30
_CHARACTERS_PER_WORD_MIN: Final = 2.5
_SINGLE_LETTERS_MAX: Final = 0.5

_ODD: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd\uffff\ue000-\uf8ff]")
# One or two of them may be a path; more in a row are not.
_GLYPH_NAMES: Final = re.compile(
    r"(?:/(?:[A-Za-z]{1,5}[0-9A-Fa-f]*[0-9][0-9A-Fa-f]*|[A-Z][A-Z])(?![A-Za-z0-9])\s*){3,}"
    r"|\(cid:[0-9]+\)"
)
_SINGLE_LETTERS: Final = re.compile(r"(?<!\S)[^\W\d_](?!\S)")
_REPEATED: Final = re.compile(r"(\S)\1{2,}")
_UNASSIGNED: Final = frozenset({"Cn", "Cs"})


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What the characters of a text say about it.

    Attributes:
        characters: characters that are not white space.
        unmapped: characters that stand for no character of the page.
        found: what is wrong.
    """

    characters: int
    unmapped: int
    found: frozenset[Sign]

    @property
    def is_garbage(self) -> bool:
        """Whether the text says nothing; such a text is not stored."""
        return Sign.CIPHER in self.found or (
            self.characters > 0 and self.unmapped / self.characters >= _UNMAPPED_IS_GARBAGE
        )


def signs_of(text: str, *, raw: str, doubted: str = "") -> Signs:
    """Return the signs of a page's text.

    Args:
        text: the text, cleaned.
        raw: the text as the engine yields it; cleaning hides what is not mapped.
        doubted: the part of the text that the engine has no map for. Such a character is the code
            of its glyph, which often is the right character: if these letters form words, it is.
    """
    words = text.split()
    characters = len("".join(raw.split()))
    unmapped = min(characters, _odd(raw))
    letters = _Letters(text)
    doubts = len("".join(_ODD.sub("", doubted).split()))

    found = set()
    if characters and (unmapped + doubts) / characters >= _UNMAPPED_ASKS:
        found.add(Sign.UNMAPPED)
    in_doubt = _Letters(doubted)
    if doubts and (in_doubt.count < _LETTERS_TO_CONFIRM or not in_doubt.form_words()):
        unmapped = min(characters, unmapped + doubts)
    if letters.count > characters / 3 and not letters.form_words():
        # A column of one abbreviation has few vowels, too: each word counts once.
        different = _Letters(" ".join(set(words)))
        if different.count >= _LETTERS_FOR_STATISTICS and not different.form_words():
            found.add(Sign.CIPHER)
    if letters.count >= _LETTERS_FOR_SPACING:
        if letters.count > _LETTERS_PER_GAP_MAX * len(words):
            found.add(Sign.SPACES_LOST)
        if len(text) < (_CHARACTERS_PER_WORD_MIN + 1) * len(words):
            single = len(_SINGLE_LETTERS.findall(text))
            if single > _SINGLE_LETTERS_MAX * letters.count:
                found.add(Sign.LETTERS_APART)
    return Signs(characters=characters, unmapped=unmapped, found=frozenset(found))


def readable(text: str, *, raw: str, doubted: str = "") -> float:
    """Return how many characters of a text are worth reading; the larger number is the better text.

    A text that is printed three times or more counts once.
    """
    signs = signs_of(_once(text), raw=_once(raw), doubted=doubted)
    if Sign.CIPHER in signs.found:
        return 0.0
    badly_spaced = signs.found & {Sign.SPACES_LOST, Sign.LETTERS_APART}
    return (signs.characters - signs.unmapped) * (0.5 if badly_spaced else 1.0)


def _once(text: str) -> str:
    return _REPEATED.sub(r"\1", text)


def _odd(text: str) -> int:
    """Return the number of characters that stand for no character of the page."""
    odd = len(_ODD.findall(text))
    beyond_latin = len(text) - len(text.encode("latin-1", "ignore"))
    if beyond_latin > _UNMAPPED_ASKS * len(text):
        odd += sum(
            text.count(character)
            for character in set(text)
            if unicodedata.category(character) in _UNASSIGNED
            and character != "\ufffe"  # PDFium's sign for a divided word
            and not _ODD.match(character)
        )
    if "/" in text or "(cid:" in text:
        odd += sum(len("".join(names.split())) for names in _GLYPH_NAMES.findall(text))
    return odd


def _kind(code: int) -> int:
    base = unicodedata.normalize("NFD", chr(code))[0].lower()
    if base in "aeiouyæø":
        return ord("v")
    return ord("c") if "a" <= base <= "z" or base in "ßðþ" else ord(" ")


# Of Latin-1: translating bytes by a table costs a hundredth of looking at characters one by one.
_KINDS: Final = bytes(map(_kind, range(256)))


class _Letters:
    """Statistics of the Latin letters of a text; letters beyond Latin-1 count as gaps."""

    def __init__(self, text: str) -> None:
        kinds = b" " + text.encode("latin-1", "replace").translate(_KINDS)
        self._vowels = kinds.count(b"v")
        self.count = self._vowels + kinds.count(b"c")
        self._neighbours = self.count - kinds.count(b" v") - kinds.count(b" c")
        self._alternating = kinds.count(b"vc") + kinds.count(b"cv")

    def form_words(self) -> bool:
        """Return whether there are as many vowels, or changes of vowel and consonant, as in words."""
        return (
            self._vowels >= _VOWELS_MIN * self.count
            or self._alternating >= _ALTERNATION_MIN * self._neighbours
        )
