"""Finds the key phrases of a document: frequent phrases between stop words.

As RAKE does: Rose et al., "Automatic Keyword Extraction from Individual Documents", 2010.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pipeline.enrich.languages import Rules

KEPT: Final = 300
"""Phrases that `most_frequent` returns."""

_BEST: Final = 10
_COUNTED_MAX: Final = 4_000
_PAGE_MAX: Final = 20_000  # characters of one page that are counted
_WORDS_MAX: Final = 4
_PHRASE_MAX: Final = 48  # characters
_SINGLE_WEIGHT: Final = 0.7
_SINGLE_MIN: Final = 4  # letters of a phrase of one word

# A phrase does not go on in the next line: the lines of tables and headings have nothing in common.
_BREAK: Final = re.compile(r"[^\w\s'’-]+|\n|\s-\s")
_NO_LETTER: Final = re.compile(r"[\d_]")
_WORD_EDGE: Final = "'’-"
_JAPANESE: Final = re.compile(r"[一-龯々]{2,8}|[ァ-ヴー]{3,12}")
_CHINESE: Final = re.compile(r"[一-龯]{2,6}")
# Chinese has no spaces: these words and signs of grammar stand between phrases.
_CHINESE_STOPS: Final = re.compile(
    "[的了是在和与及或为对中有不这那也就都而被把从到于其之以将个我你他她它们上下]"
)
_NO_SPACES: Final = frozenset({"km", "lo", "my", "th"})


@dataclass(slots=True)
class _Counted:
    phrase: str
    count: int


class KeyPhrases:
    """Counts the phrases of pages; keeps at most 4,000, the frequent ones."""

    def __init__(self, counted: Iterable[tuple[str, int]] = ()) -> None:
        """Go on from what `most_frequent` returned."""
        self._counts = {phrase.casefold(): _Counted(phrase, count) for phrase, count in counted}

    def add(self, text: str, *, rules: Rules) -> None:
        """Count the phrases of a page."""
        counts = self._counts
        for phrase in _phrases(text[:_PAGE_MAX], rules):
            key = phrase.casefold()
            if known := counts.get(key):
                known.count += 1
            else:
                counts[key] = _Counted(phrase, 1)
        if len(counts) > _COUNTED_MAX:
            ranked = self._ranked(_COUNTED_MAX // 2)
            self._counts = {phrase.casefold(): _Counted(phrase, count) for phrase, count in ranked}

    def most_frequent(self) -> list[tuple[str, int]]:
        """Return phrases and their counts, for an object that goes on counting elsewhere."""
        return self._ranked(KEPT)

    def best(self) -> tuple[str, ...]:
        """Return the most telling phrases, best first: frequent and long, none a part of another."""
        scores = {phrase: count * _weight(phrase) for phrase, count in self._ranked(KEPT)}
        chosen: list[tuple[str, set[str]]] = []
        for phrase in sorted(scores, key=scores.__getitem__, reverse=True):
            words = set(phrase.casefold().split())
            if not any(words <= others or others <= words for _, others in chosen):
                chosen.append((phrase, words))
            if len(chosen) == _BEST:
                break
        return tuple(phrase for phrase, _ in chosen)

    def _ranked(self, most: int) -> list[tuple[str, int]]:
        ranked = sorted(self._counts.values(), key=lambda each: -each.count)
        return [(each.phrase, each.count) for each in ranked[:most]]


def _weight(phrase: str) -> float:
    """Return what one occurrence is worth; a word alone says little."""
    is_ideographic = "一" <= phrase[0] <= "龯"  # two signs are about a word
    words = len(phrase) // 2 if is_ideographic else phrase.count(" ") + 1
    return math.log2(1 + words) if words > 1 else _SINGLE_WEIGHT


def _phrases(text: str, rules: Rules) -> Iterator[str]:
    match rules.code:
        case "ja":
            yield from _JAPANESE.findall(text)
        case "zh":
            yield from _CHINESE.findall(_CHINESE_STOPS.sub(" ", text))
        case code if code in _NO_SPACES:
            return
        case _:
            yield from _between_stop_words(text, rules.stop_words)


def _between_stop_words(text: str, stop_words: frozenset[str]) -> Iterator[str]:
    has_edges = any(edge in text for edge in _WORD_EDGE)
    for clause in _BREAK.split(text):
        words = clause.split()
        if has_edges:
            words = [word.strip(_WORD_EDGE) for word in words]
        has_digits = _NO_LETTER.search(clause) is not None
        run: list[str] = []
        for word in (*words, ""):
            if (
                len(word) > 1
                and word.lower() not in stop_words
                and not (has_digits and _NO_LETTER.search(word))
            ):
                run.append(word)
            elif run:
                phrase = " ".join(run)
                if (
                    len(run) <= _WORDS_MAX
                    and len(phrase) <= _PHRASE_MAX
                    and (len(run) > 1 or len(phrase) >= _SINGLE_MIN)
                ):
                    yield phrase
                run = []
