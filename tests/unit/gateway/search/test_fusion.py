"""One ranking out of two."""

import pytest

from gateway.search.fusion import (
    MEANING_MAX,
    NEARER,
    Scored,
    fuse,
    near_min,
)
from gateway.search.ranking import Place

NEAR = 0.25


def place(page: int) -> Place:
    return Place("a", page, 0)


def scored(scores: dict[int, float]) -> list[Scored]:
    return [Scored(place(page), score) for page, score in scores.items()]


def pages(
    words: dict[int, float], vectors: dict[int, float], *, is_by_words: bool = True
) -> list[int]:
    by_words = scored(words)
    near = near_min(by_words, near=NEAR, is_by_words=is_by_words)
    fused = fuse(by_words, scored(vectors), meaning=MEANING_MAX, near=near)
    return [each.place.page for each in fused]


def test_a_passage_without_a_word_is_a_hit_only_if_it_is_near() -> None:
    assert pages({1: 1.0}, {1: 0.12, 2: NEAR, 3: NEAR - 0.01}) == [1, 2]


@pytest.mark.parametrize(("is_by_words", "expected"), [(True, [1]), (False, [1, 2, 3])])
def test_a_query_whose_words_no_passage_has_finds_only_what_is_very_near(
    *, is_by_words: bool, expected: list[int]
) -> None:
    vectors = {1: NEAR * NEARER, 2: NEAR, 3: 0.2}
    assert pages({}, vectors, is_by_words=is_by_words) == expected
