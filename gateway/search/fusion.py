"""One ranking out of two: by words, and by meaning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.search.query import Query
from gateway.search.ranking import Place
from schemas.ids import DocumentId

FEW_WORDS: Final = 2
"""A query of so few words names a thing; a longer one describes it."""

MEANING_OF_EXACT: Final = 0.15
MEANING_OF_NAMES: Final = 0.25
MEANING_OF_SENTENCES: Final = 0.3
"""A passage with most of the words outranks the nearest one; one with a few of them does not."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A passage in one of the rankings; a larger score is better."""

    place: Place
    document_id: DocumentId
    score: float


@dataclass(frozen=True, kw_only=True)
class Fused:
    """A passage in the common ranking.

    Attributes:
        score: 0 to 1, for a comparison within the answers to one query.
        by_words: whether words of the query led to it.
        by_meaning: whether its vector led to it.
    """

    place: Place
    document_id: DocumentId
    score: float
    by_words: bool
    by_meaning: bool


def weight_of_meaning(query: Query) -> float:
    """Return how much the vectors count, 0 to 1, by the shape of the query.

    Who writes quotes or digits means these very words; who writes a sentence means its content.
    """
    if query.has_operators:
        return MEANING_OF_EXACT
    words = query.text.split()
    if any(any(map(str.isdigit, word)) for word in words):
        return MEANING_OF_EXACT
    return MEANING_OF_NAMES if len(words) <= FEW_WORDS else MEANING_OF_SENTENCES


def fuse(words: Sequence[Scored], vectors: Sequence[Scored], *, meaning: float) -> list[Fused]:
    """Return the passages of both rankings, the best first; the order of equal scores is stable.

    The score by words is absolute: 1 for a passage with every term. If no passage has more than some of
    the terms, the vectors decide. Similarities only say which passage is nearer than another, so
    that they are scaled to the range of the nearest ones.

    Args:
        words: the ranking by words.
        vectors: the ranking by vectors.
        meaning: the weight of the vectors.
    """
    by_words = {each.place: each for each in words}
    by_meaning = {each.place: each for each in vectors}
    if not vectors:
        meaning = 0.0
    elif not words:
        meaning = 1.0
    similarity = _scaled(by_meaning)
    top = max((each.score for each in words), default=1.0)
    fused = [
        Fused(
            place=place,
            document_id=(by_words.get(place) or by_meaning[place]).document_id,
            score=(1 - meaning)
            * (by_words[place].score / max(top, 1.0) if place in by_words else 0)
            + meaning * similarity.get(place, 0.0),
            by_words=place in by_words,
            by_meaning=place in by_meaning,
        )
        for place in by_words.keys() | by_meaning.keys()
    ]
    return sorted(fused, key=lambda each: (-each.score, each.place))


def _scaled(ranking: Mapping[Place, Scored]) -> dict[Place, float]:
    """Return similarities from 0, for the farthest, to 1, for the nearest."""
    scores = [each.score for each in ranking.values()]
    if not scores:
        return {}
    low, high = min(scores), max(scores)
    if high == low:
        return dict.fromkeys(ranking, 1.0)
    return {place: (each.score - low) / (high - low) for place, each in ranking.items()}
