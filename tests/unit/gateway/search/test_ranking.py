"""The ranking by words, and the common ranking."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.search.fusion import Scored, fuse, weight_of_meaning
from gateway.search.query import Atom, AtomKind, parse
from gateway.search.ranking import ONCE, Candidate, Place, scores, weights_of
from gateway.search.terms import Term


def place(number: int) -> Place:
    return Place(str(UUID(int=number)), 1, 0)


def candidate(
    number: int, *, present: int, tokens: int = 100, ranks: Sequence[float | None] = ()
) -> Candidate:
    return Candidate(place(number), tokens, present, ranks)


def term(word: str, *, share: float = 0.0) -> Term:
    return Term(
        atoms=(Atom(kind=AtomKind.WORD, text=word),),
        forms=(word,),
        condition=word,
        alternatives=(word,),
        presence=word,
        sequences=(),
        is_required=False,
        share=share,
    )


def test_a_rare_term_counts_more() -> None:
    terms = [term("rare"), term("common", share=0.5)]
    found = [candidate(number, present=3 if number else 1) for number in range(10)]

    rare, common = weights_of(terms, found, passages=1000, decisive=frozenset({terms[0]}))

    assert rare > 4 * common > 0


def test_more_and_rarer_words_and_shorter_passages_score_higher() -> None:
    def scored(present: int, ranks: list[float | None], tokens: int = 100) -> float:
        others = [candidate(2, present=0, tokens=200 - tokens, ranks=[0.0, 0.0])]
        measured = candidate(1, present=present, tokens=tokens, ranks=ranks)
        return scores([measured, *others], [4.0, 1.0])[0]

    best = scored(3, [1.25 * ONCE, 1.25 * ONCE])
    assert best == pytest.approx(1.0)
    assert best > scored(3, [ONCE, ONCE]) > scored(1, [ONCE, 0.0]) > scored(2, [0.0, ONCE]) > 0
    assert scored(3, [1.5 * ONCE, ONCE]) > scored(3, [ONCE, ONCE])
    assert scored(3, [ONCE, ONCE], tokens=50) > scored(3, [ONCE, ONCE], tokens=150)
    # A phrase has no rank of its own, and a page in another language a smaller one.
    assert scored(1, [None, 0.0]) > scored(1, [0.25 * ONCE, 0.0]) == scored(1, [ONCE, 0.0])


def scored(number: int, value: float) -> Scored:
    return Scored(place(number), value)


def test_meaning_counts_more_where_no_passage_has_many_of_the_words() -> None:
    query = parse("how fast does energy move through the atmosphere")
    weights = [weight_of_meaning(query, [scored(1, best)]) for best in (1.3, 1.0, 0.5, 0.0)]

    assert weights == sorted(weights)
    assert weights[0] == weights[1] < weights[2] < weights[3] == weight_of_meaning(query, [])


def test_a_query_with_operators_means_its_very_words() -> None:
    few = [scored(1, 0.1)]

    assert weight_of_meaning(parse('"annual report"'), few) < weight_of_meaning(
        parse("annual report"), few
    )


def test_a_passage_in_both_rankings_comes_first() -> None:
    fused = fuse(
        [scored(1, 0.8), scored(2, 0.7)],
        [scored(3, 0.9), scored(2, 0.8), scored(4, 0.1)],
        meaning=0.5,
    )

    assert fused[0].place == place(2)
    assert (fused[0].by_words, fused[0].by_meaning) == (True, True)


rankings = st.dictionaries(
    st.integers(min_value=1, max_value=20),
    st.integers(min_value=0, max_value=1300).map(lambda number: number / 1000),
    max_size=20,
).map(lambda found: [scored(number, value) for number, value in found.items()])


@given(rankings, rankings, st.floats(min_value=0.01, max_value=0.99))
def test_the_common_ranking_has_every_passage_once_in_a_stable_order(
    words: list[Scored], vectors: list[Scored], meaning: float
) -> None:
    fused = fuse(words, vectors, meaning=meaning)

    assert sorted(each.place for each in fused) == sorted(
        {each.place for each in (*words, *vectors)}
    )
    assert fused == fuse(words[::-1], vectors[::-1], meaning=meaning)
    assert all(0 <= each.score <= 1.0001 for each in fused)


@given(rankings)
def test_one_ranking_alone_keeps_its_order(ranking: list[Scored]) -> None:
    expected = [each.score for each in sorted(ranking, key=lambda one: -one.score)]
    scores = {each.place: each.score for each in ranking}

    assert [scores[each.place] for each in fuse(ranking, [], meaning=0.5)] == expected
    assert [scores[each.place] for each in fuse([], ranking, meaning=0.5)] == expected
