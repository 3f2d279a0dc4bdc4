"""One ranking out of two: by words, and by meaning."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from gateway.search.query import Query
from gateway.search.ranking import Place

MEANING_MIN: Final = 0.15
MEANING_MAX: Final = 0.4
"""How much the vectors count where a passage has every word of the query, and where none has any."""

NEARER: Final = 1.2
"""Times the similarity that is enough otherwise, for a query whose words no passage has: a misspelling
is near to something, too."""


class Scored(NamedTuple):
    """A passage in one of the rankings; a larger score is better."""

    place: Place
    score: float


class Fused(NamedTuple):
    """A passage in the common ranking.

    Attributes:
        score: 0 to 1, for a comparison within the answers to one query.
        by_words: whether words of the query led to it.
        by_meaning: whether its vector led to it.
    """

    place: Place
    score: float
    by_words: bool
    by_meaning: bool


def weight_of_meaning(query: Query, words: Sequence[Scored]) -> float:
    """Return how much the vectors count, 0 to 1.

    The fewer of the words the best passage has, the more. A query with operators means its very words.
    """
    if query.has_operators:
        return MEANING_MIN
    best = min(1.0, max((each.score for each in words), default=0.0))
    return best * MEANING_MIN + (1 - best) * MEANING_MAX


def near_min(words: Sequence[Scored], *, near: float, is_by_words: bool) -> float:
    """Return how similar a passage without a word of the query is at least to be a hit.

    Args:
        words: the ranking by words.
        near: of the model; see `schemas.runtime.embedding.chosen.Model`.
        is_by_words: whether words were searched. The answer of vectors alone is the nearest passages,
            however near they are.
    """
    if not is_by_words:
        return 0.0
    return near if words else near * NEARER


def fuse(
    words: Sequence[Scored], vectors: Sequence[Scored], *, meaning: float, near: float = 0.0
) -> list[Fused]:
    """Return the passages of both rankings, the best first; the order of equal scores is stable.

    The score by words is absolute: 1 for a passage with every term. If no passage has more than some of
    the terms, the vectors decide. Similarities only say which passage is nearer than another, so
    that they are scaled to the range of the nearest ones.

    Args:
        words: the ranking by words.
        vectors: the ranking by vectors.
        meaning: the weight of the vectors.
        near: from `near_min`; by default every vector counts.
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
            score=(1 - meaning)
            * (by_words[place].score / max(top, 1.0) if place in by_words else 0)
            + meaning * similarity.get(place, 0.0),
            by_words=place in by_words,
            by_meaning=place in by_meaning,
        )
        for place in by_words.keys() | by_meaning.keys()
        if place in by_words or by_meaning[place].score >= near
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
