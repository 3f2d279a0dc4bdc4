from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uploads import chunking
from gateway.uploads.chunking import Limits, Plan
from schemas.settings import GIB, MIB

LIMITS = Limits(default=8 * MIB, smallest=64 * 1024, largest=64 * MIB, most_chunks=20_000)

sizes = st.integers(0, 100 * 1024 * GIB)
wishes = st.none() | st.integers(1, 2**40)


@given(sizes, wishes)
def test_chunks_cover_the_file_once_and_in_order(size: int, wish: int | None) -> None:
    plan = chunking.plan(min(size, 1000 * LIMITS.smallest), wish=wish, limits=LIMITS)

    end = 0
    for index in range(plan.chunk_count):
        assert index in plan
        assert plan.offset_of(index) == end
        assert 0 < plan.size_of(index) <= plan.chunk_size
        end += plan.size_of(index)
    assert end == plan.size
    assert plan.chunk_count not in plan
    assert -1 not in plan


@given(sizes, wishes)
def test_no_plan_has_more_chunks_than_allowed(size: int, wish: int | None) -> None:
    plan = chunking.plan(size, wish=wish, limits=LIMITS)

    assert plan.chunk_count <= LIMITS.most_chunks
    assert plan.chunk_size >= LIMITS.smallest


@given(st.integers(0, GIB), wishes)
def test_a_wish_within_the_limits_is_granted(size: int, wish: int | None) -> None:
    plan = chunking.plan(size, wish=wish, limits=LIMITS)

    wanted = LIMITS.default if wish is None else wish
    if LIMITS.smallest <= wanted <= LIMITS.largest and size <= wanted * LIMITS.most_chunks:
        assert plan.chunk_size == wanted


@pytest.mark.parametrize(
    ("wish", "granted"), [(1, LIMITS.smallest), (2**40, LIMITS.largest), (None, LIMITS.default)]
)
def test_a_wish_outside_the_limits_is_bent_to_them(wish: int | None, granted: int) -> None:
    assert chunking.plan(GIB, wish=wish, limits=LIMITS).chunk_size == granted


def test_a_file_too_large_for_its_chunks_gets_the_next_larger_whole_mebibytes() -> None:
    plan = chunking.plan(100 * GIB, wish=MIB, limits=LIMITS)

    assert plan.chunk_size == 6 * MIB
    assert plan.chunk_count == 17_067


def test_an_empty_file_has_no_chunks() -> None:
    plan = chunking.plan(0, wish=None, limits=LIMITS)

    assert plan.chunk_count == 0
    assert 0 not in plan


def test_the_last_chunk_may_be_short() -> None:
    plan = Plan(size=10, chunk_size=4)

    assert [plan.size_of(index) for index in range(plan.chunk_count)] == [4, 4, 2]
