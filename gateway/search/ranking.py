"""How well the words of a passage match: BM25 in form.

A term counts by its rarity, and by its number in the passage with diminishing returns:
`ts_rank` of a single lexeme is such a number. Passages are of similar length, so that length counts little.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.search.terms import Term

LENGTH_WEIGHT: Final = 0.3
"""How much a passage loses by being longer than the others; BM25's `b`."""

ONCE: Final = 6 / math.pi**2
"""`ts_rank` of a lexeme of weight 1 that occurs once; it is 1 for one that occurs without end."""

AS_WRITTEN_WEIGHT: Final = 0.25
"""What a word as written counts beside its normal form."""

RANK_WEIGHTS: Final = (AS_WRITTEN_WEIGHT, 0.0, 0.0, 1.0)
"""Of the weights D, C, B and A of lexemes."""


class Place(NamedTuple):
    """The key of a passage.

    Attributes:
        revision_id: as text: a search compares and hashes thousands of places, and a UUID takes ten times
            as long.
    """

    revision_id: str
    page: int
    ordinal: int


class Candidate(NamedTuple):
    """A passage that has some terms.

    Attributes:
        present: bit n is set if the passage has term n.
        ranks: of each term, the sum of `ts_rank` of its forms; None for a term without single lexemes.
    """

    place: Place
    tokens: int
    present: int
    ranks: Sequence[float | None]


def weights_of(
    terms: Sequence[Term],
    candidates: Sequence[Candidate],
    *,
    passages: int,
    decisive: frozenset[Term],
) -> list[float]:
    """Return how much each term counts: the rarer, the more (inverse document frequency).

    Args:
        terms: the wanted terms.
        candidates: the passages that were read.
        passages: the estimated number of the tenant's passages.
        decisive: terms of which every passage is a candidate; their number is exact.
    """
    total = max(passages, len(candidates), 1)
    # Thousands of candidates have few different combinations of terms.
    combinations = Counter(each.present for each in candidates)
    weights = []
    for place, term in enumerate(terms):
        count: float = sum(n for present, n in combinations.items() if present >> place & 1)
        if term not in decisive:
            count = min(max(count, term.share * total), total)
        weights.append(math.log(1 + (total - count + 0.5) / (count + 0.5)))
    return weights


def scores(candidates: Sequence[Candidate], weights: Sequence[float]) -> list[float]:
    """Return how well each passage matches: 1 if it has every term once, as written.

    Args:
        candidates: the passages.
        weights: from `weights_of`.
    """
    best = 1 + AS_WRITTEN_WEIGHT
    possible = best * sum(weights)
    mean_tokens = max(sum(each.tokens for each in candidates) / max(1, len(candidates)), 1.0)
    found = []
    for each in candidates:
        value = 0.0
        for place, (weight, rank) in enumerate(zip(weights, each.ranks, strict=True)):
            if each.present >> place & 1:
                # A page in another language has the word as written alone, with its smaller weight.
                value += weight * (best if rank is None else max(1.0, rank / ONCE))
        length = 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * each.tokens / mean_tokens
        found.append(value / possible / length if possible else 0.0)
    return found
