"""BM25 by rank-bm25, words as they are: what search is compared with."""

import re
from collections.abc import Sequence

from rank_bm25 import BM25Okapi

from dev.retrieval.questions import Question
from dev.retrieval.relevance import DEPTH, Place


def by_bm25(
    passages: Sequence[tuple[Place, str]], asked: Sequence[Question]
) -> list[tuple[Question, list[Place]]]:
    """Return the places of the first hits of each question."""
    index = BM25Okapi([_words(text) for _, text in passages])
    rankings = []
    for question in asked:
        scores = index.get_scores(_words(question.text))
        best = sorted(range(len(passages)), key=lambda each: -scores[each])[:DEPTH]
        rankings.append((question, [passages[each][0] for each in best if scores[each] > 0]))
    return rankings


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
