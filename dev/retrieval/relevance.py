"""How well a ranking of pages answers a question: nDCG@10 and hit@10."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import log2
from statistics import fmean
from typing import Final, NamedTuple, Self

from dev.retrieval.questions import Question

DEPTH: Final = 10
"""Hits that count."""


class Place(NamedTuple):
    """A page of a document."""

    file: str
    page: int


def answers(question: Question) -> frozenset[Place]:
    return frozenset(Place(question.file, page) for page in question.pages)


def ndcg(hits: Iterable[Place], relevant: Collection[Place]) -> float:
    """Return the discounted gain of the first hits, as a share of that of the best ranking.

    A page gains once; its further passages take up places without a gain.
    """
    if not relevant:
        raise ValueError("no page is relevant")
    missing = set(relevant)
    gain = 0.0
    for place, hit in enumerate(islice(hits, DEPTH), start=1):
        if hit in missing:
            missing.remove(hit)
            gain += 1 / log2(place + 1)
    ideal = sum(1 / log2(place + 1) for place in range(1, min(len(relevant), DEPTH) + 1))
    return gain / ideal


def is_hit(hits: Iterable[Place], relevant: Collection[Place]) -> bool:
    """Return whether one of the first hits is relevant."""
    return any(hit in relevant for hit in islice(hits, DEPTH))


@dataclass(frozen=True, kw_only=True)
class Score:
    """Means over some questions."""

    questions: int
    ndcg: float
    hits: float

    @classmethod
    def of(cls, rankings: Sequence[tuple[Question, Sequence[Place]]]) -> Self:
        return cls(
            questions=len(rankings),
            ndcg=fmean(ndcg(hits, answers(question)) for question, hits in rankings),
            hits=fmean(is_hit(hits, answers(question)) for question, hits in rankings),
        )


def by_kind(rankings: Sequence[tuple[Question, Sequence[Place]]]) -> Mapping[str, Score]:
    """Return the score of each kind of question, in the order of their names."""
    kinds = sorted({question.kind for question, _ in rankings})
    return {kind: Score.of([each for each in rankings if each[0].kind == kind]) for kind in kinds}
