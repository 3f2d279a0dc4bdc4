"""Signs that an engine has misread the text of a page; pure.

An engine maps the glyphs of a font to characters. Without a usable map it yields glyph names,
control characters, private characters, or letters that are all shifted by a constant. The engine
reports no error, and nobody can read the text.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.ingest import text as text_rules
from pipeline.ingest.text import KNOWN_PRIVATE


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
# Without a third of its characters a text cannot be understood.
_UNMAPPED_MAX: Final = 0.3
# What is left of such a text are a few characters at random.
_MISSING_MAX: Final = 0.6
# In European languages at least 34 % of the letters are vowels, and of the letters that are
# neighbours at least 60 % are a vowel and a consonant. A shift of the alphabet leaves less than 31 %
# and 53 %, except two shifts that leave as many vowels.
_VOWELS_MIN: Final = 0.31
_ALTERNATION_MIN: Final = 0.53
_LETTERS_FOR_STATISTICS: Final = 40
_LETTERS_TO_CONFIRM: Final = 5
_LETTERS_OF_NOISE: Final = 20
_DIGITS_OF_NUMBERS: Final = 0.6
# Finnish, with the longest words of Europe, has eight letters per gap.
_LETTERS_PER_GAP_MAX: Final = 16
_LETTERS_FOR_SPACING: Final = 30
_CHARACTERS_PER_WORD_MIN: Final = 2.5
_SINGLE_LETTERS_MAX: Final = 0.5
# Chinese in bytes that are taken for Western letters; the most accented languages have 15 %.
_ACCENTED_MAX: Final = 0.5
_ACCENTED_LEAST: Final = 10
_PHONETIC_MAX: Final = 0.4
_MIXED_WORDS_MAX: Final = 0.3
# The two bytes of a Cyrillic letter make a Korean syllable of one of two rows.
_ROWS_OF_OTHER_ENCODINGS: Final = 2
# A code that stands for the space is that frequent.
_SPACE_SHARE: Final = (0.08, 0.3)
_SPACES_LEAST: Final = 5

_CLEANED_AWAY: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\uffff\ue000-\uf8ff]")
_CONTROL: Final = re.compile("[\x01-\x08\x0b\x0e-\x1f]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PRIVATE: Final = re.compile("[\ue000-\uf8ff]")
_GLYPH_NAMES: Final = re.compile(
    # One or two of them may be a path; more in a row are not.
    r"(?:/(?:[A-Za-z]{1,5}[0-9A-Fa-f]*[0-9][0-9A-Fa-f]*|[A-F][0-9A-F]{2}|[A-Z][A-Z]"
    r"|[A-Za-z]+(?:_[A-Za-z]+)+)(?![A-Za-z0-9])\s*){3,}"
    r"|\(cid:[0-9]+\)"
)
_SINGLE_LETTERS: Final = re.compile(r"(?<!\S)[^\W\d_](?!\S)")
_REPEATED: Final = re.compile(r"(\S)\1{2,}")
_ALPHABET: Final = re.compile("bcde|ijkl|qrst|wxyz", re.IGNORECASE)  # a sample of a font
_ACCENTED: Final = re.compile("[\u00a1-\u00ff\u02c6-\u02dd]{2,}")
# Latin letters for phonetics. Of the shifted alphabets, the Cyrillic one falls here.
_PHONETIC: Final = re.compile("[\u0180-\u019f\u01b1-\u0258\u025a-\u02af]")
_KANA_OR_HAN: Final = re.compile("[\u3001-\u30ff\u4e00-\u9fff\uff01-\uff9f]")
_NUMBERS: Final = re.compile("[0-9 .,:/%$\u20ac\u00a3+()-]*")
_HANGUL: Final = re.compile("[\uac00-\ud7a3]")
_SPACES: Final = re.compile(r"[^\S\x1c-\x1f]+")  # Python takes four controls for spaces


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What the characters of a text say about it.

    Attributes:
        characters: characters that are not white space.
        missing: characters that cleaning removes, because nothing is known about them.
        garbage: characters that stay, and stand for no character of the page.
        found: what is wrong.
    """

    characters: int
    missing: int
    garbage: int
    found: frozenset[Sign]

    @property
    def is_garbage(self) -> bool:
        """Whether what cleaning leaves says nothing; such a text is not stored."""
        return (
            Sign.CIPHER in self.found
            or self.missing > _MISSING_MAX * self.characters
            or self.garbage > _UNMAPPED_MAX * (self.characters - self.missing)
        )

    @property
    def is_incomplete(self) -> bool:
        """Whether so many characters are missing that the page cannot be understood."""
        return self.missing > _UNMAPPED_MAX * self.characters

    @property
    def readable(self) -> int:
        """Characters that say something."""
        if self.is_garbage:
            return 0
        return max(0, self.characters - self.missing - self.garbage)

    @property
    def quality(self) -> float:
        """Part of the characters that say something, from 0 to 1; bad spacing halves it."""
        if not self.characters:
            return 0.0
        badly_spaced = self.found & {Sign.SPACES_LOST, Sign.LETTERS_APART}
        return self.readable / self.characters * (0.5 if badly_spaced else 1.0)


def signs_of(text: str, *, raw: str, doubted: str = "") -> Signs:
    """Return the signs of a page's text.

    Args:
        text: the text, cleaned.
        raw: the text as the engine yields it; cleaning hides what is not mapped.
        doubted: the part of the text that the engine has no map for. Such a character is the code
            of its glyph, which often is the right character: if these letters form words, it is.
    """
    raw = _with_characters(raw).replace("\ufffe", "")  # PDFium's sign for a divided word
    words = text.split()
    if text_rules.is_plain(raw.replace("\r\n", "\n")):
        characters, missing = len(raw) - sum(map(raw.count, " \r\n")), 0
    else:
        characters = len(_SPACES.sub("", raw))
        missing = len(_CLEANED_AWAY.findall(raw))
    doubts = _CLEANED_AWAY.sub("", _with_characters(doubted)).replace(" ", "")
    wrong = min(_garbage(raw), characters - missing)

    found = set()
    if missing + wrong + len(doubts) > _UNMAPPED_ASKS * characters:
        found.add(Sign.UNMAPPED)
    if doubts and not _is_plausible(doubted, doubts):
        wrong = min(wrong + len(doubts), characters - missing)
    letters = _Letters(text)
    if _is_cipher(text, words, letters):
        found.add(Sign.CIPHER)
    if letters.count >= _LETTERS_FOR_SPACING:
        if letters.count > _LETTERS_PER_GAP_MAX * len(words):
            found.add(Sign.SPACES_LOST)
        if len(text) < (_CHARACTERS_PER_WORD_MIN + 1) * len(words):
            single = len(_SINGLE_LETTERS.findall(text))
            if single > _SINGLE_LETTERS_MAX * letters.count:
                found.add(Sign.LETTERS_APART)
    return Signs(characters=characters, missing=missing, garbage=wrong, found=frozenset(found))


def once(text: str) -> str:
    """Return the text with letters that are printed three times or more, once."""
    return _REPEATED.sub(r"\1", text)


def without_noise(raw: str, *, doubted: str) -> str:
    """Return the text with NUL for the characters in doubt, if they are certainly the wrong ones.

    Args:
        raw: the text as the engine yields it.
        doubted: as long as `raw`, with spaces for the characters that the engine has a map for.
    """
    letters = _Letters(doubted)
    if letters.count < _LETTERS_OF_NOISE or letters.form_words():
        return raw
    return "".join(each if doubt == " " else "\0" for each, doubt in zip(raw, doubted, strict=True))


def with_spaces(raw: str) -> str:
    """Return the text with spaces for a control character that stands where spaces are expected.

    Every character keeps its place. A font may map its letters and not its space.
    """
    if _CONTROL.search(raw) is None:
        return raw
    code, count = Counter(_CONTROL.findall(raw)).most_common(1)[0]
    least, most = _SPACE_SHARE
    is_space = (
        count >= _SPACES_LEAST
        and least * len(raw) < count < most * len(raw)
        and raw.count(" ") < least / 2 * len(raw)
    )
    return raw.replace(code, " ") if is_space else raw


def _with_characters(raw: str) -> str:
    """Return the text with characters for surrogates and for the private codes that are known."""
    if raw.isascii():
        return raw
    if _SURROGATE.search(raw):
        raw = raw.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return raw.translate(KNOWN_PRIVATE) if _PRIVATE.search(raw) else raw


def _garbage(raw: str) -> int:
    """Return the number of characters that cleaning keeps and that stand for no character."""
    wrong = raw.count("\ufffd")
    if "/" in raw or "(cid:" in raw:
        wrong += sum(len("".join(names.split())) for names in _GLYPH_NAMES.findall(raw))
    if raw.isascii():
        return wrong
    accented = sum(map(len, _ACCENTED.findall(raw)))
    if accented > max(_ACCENTED_LEAST, _ACCENTED_MAX * len("".join(raw.split()))):
        wrong += accented
    beyond_latin = len(raw) - len(raw.encode("latin-1", "ignore"))
    if beyond_latin > _UNMAPPED_ASKS * len(raw):
        wrong += sum(raw.count(each) for each in set(raw) if unicodedata.category(each) == "Cn")
    return wrong


def _is_plausible(doubted: str, doubts: str) -> bool:
    """Return whether the codes of glyphs without a map are the right characters."""
    letters = _Letters(doubted)
    if letters.count >= _LETTERS_TO_CONFIRM and letters.form_words():
        return True
    if _NUMBERS.fullmatch(doubts):
        return sum(map(str.isdigit, doubts)) >= _DIGITS_OF_NUMBERS * len(doubts)
    east_asian = len(_KANA_OR_HAN.findall(doubts))
    hangul = set(_HANGUL.findall(doubts))
    if len({ord(each) >> 8 for each in hangul}) > _ROWS_OF_OTHER_ENCODINGS:
        east_asian += len(_HANGUL.findall(doubts))
    return east_asian > (1 - _UNMAPPED_MAX) * len(doubts)


def _is_cipher(text: str, words: list[str], letters: "_Letters") -> bool:
    """Return whether the letters form no words of any language."""
    if letters.count > len(text) / 3 and not letters.form_words():
        # A column of one abbreviation has few vowels, too: each word counts once.
        different = _Letters(" ".join({word for word in words if not _ALPHABET.search(word)}))
        if different.count >= _LETTERS_FOR_STATISTICS and not different.form_words():
            return True
    if text.isascii() or len(text) - len(text.encode("latin-1", "ignore")) < len(text) / 4:
        return False
    if len(_PHONETIC.findall(text)) > _PHONETIC_MAX * len(text):
        return True
    scripts = [_scripts(word) for word in words]
    mixed = sum(len(each) > 1 for each in scripts)
    return mixed > _MIXED_WORDS_MAX * sum(map(bool, scripts))


def _scripts(word: str) -> set[str]:
    """Return the scripts of the letters of a word, without those that go with any other one."""
    found = {_SCRIPTS[each] for each in set(word)}
    found.discard("")
    return found


class _Scripts(dict[str, str]):
    """The script of a letter; empty for other characters, and for Latin and Greek letters.

    Filled as characters occur.
    """

    def __missing__(self, character: str) -> str:
        script = ""
        if character.isalpha():
            script = unicodedata.name(character, "UNKNOWN").split(maxsplit=1)[0]
            if script in {"LATIN", "GREEK", "FULLWIDTH", "MODIFIER", "MATHEMATICAL", "MICRO"}:
                script = ""
            elif script in {"HIRAGANA", "KATAKANA", "HALFWIDTH", "KATAKANA-HIRAGANA", "HANGUL"}:
                script = "CJK"
        self[character] = script
        return script


_SCRIPTS: Final = _Scripts()


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
