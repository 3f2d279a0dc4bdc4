"""How the nearest vectors are found at the least cost."""

import pytest

from gateway.search.meaning import way_of
from gateway.search.queries import Way
from gateway.search.terms import Term, Terms
from gateway.search_statistics import Shares
from schemas.settings import SearchSettings

MILLION = 1_000_000


def way(passages: int, *, of: int = MILLION, required: float | None = None, **settings: int) -> Way:
    """Return the way to the vectors of a tenant with so many passages of so many."""
    terms = () if required is None else (term(required),)
    return way_of(
        Terms(wanted=terms, excluded=None, excluded_share=0),
        marks=[],
        shares=Shares(passages=of),
        passages=passages,
        settings=SearchSettings.model_validate(
            {f"search_{name}": value for name, value in settings.items()}
        ),
    )


def term(share: float) -> Term:
    return Term(
        atoms=(),
        forms=(),
        condition="'word'",
        alternatives=("'word'",),
        presence="'word'",
        sequences=(),
        is_required=True,
        share=share,
    )


@pytest.mark.parametrize(
    ("passages", "of", "expected"),
    [
        (10_000, MILLION, Way.ALL),
        (40_000, MILLION, Way.ALL),
        (60_000, MILLION, Way.INDEX),
        (800_000, MILLION, Way.INDEX),
        # The same share of ten times as many: the index would read ten times as many vectors of others.
        (100_000, 10 * MILLION, Way.ALL),
        (100_001, 10 * MILLION, Way.INDEX),
        # Nearly all vectors that the index finds are those of the tenant.
        (60_000, 70_000, Way.INDEX),
        (30_000, 30_000, Way.ALL),
        # Before the first ANALYZE.
        (10_000, 0, Way.ALL),
    ],
)
def test_the_vectors_of_a_tenant_are_compared_one_by_one_where_the_index_costs_more(
    passages: int, of: int, expected: Way
) -> None:
    assert way(passages, of=of) is expected


def test_no_more_vectors_are_compared_than_the_setting_says() -> None:
    assert way(10_000, exact_max=9_999) is Way.INDEX
    assert way(10_000, exact_max=9_999, required=0.9) is Way.INDEX
    assert way(10, exact_max=9, required=0.9) is Way.MATCHING


def test_a_lower_ef_makes_the_index_cheaper() -> None:
    assert way(20_000, of=30_000) is Way.ALL
    assert way(20_000, of=30_000, ef=100) is Way.INDEX


def test_required_words_select_the_vectors_unless_they_leave_too_many() -> None:
    assert way(800_000, required=0.01) is Way.MATCHING
    assert way(800_000, required=0.1) is Way.INDEX
    assert way(10_000, required=0.9) is Way.ALL
