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

    wanted = LIMITS.default if wish is None else wish  # a GiB has few enough of the default
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


@given(sizes)
def test_without_a_wish_the_count_of_chunks_stays_comfortable(size: int) -> None:
    plan = chunking.plan(size, wish=None, limits=LIMITS)

    if size <= LIMITS.largest * chunking.COMFORTABLE_COUNT:
        assert plan.chunk_count <= chunking.COMFORTABLE_COUNT
        assert LIMITS.default <= plan.chunk_size <= LIMITS.largest
        mebibytes = plan.chunk_size // MIB
        assert mebibytes & (mebibytes - 1) == 0, "not a power of two"
        assert plan.chunk_size == LIMITS.default or (
            size > plan.chunk_size // 2 * chunking.COMFORTABLE_COUNT
        ), "larger than it need be"


@given(sizes, sizes)
def test_a_larger_file_never_gets_smaller_chunks(one: int, other: int) -> None:
    small, large = sorted((one, other))

    assert (
        chunking.plan(small, wish=None, limits=LIMITS).chunk_size
        <= chunking.plan(large, wish=None, limits=LIMITS).chunk_size
    )


@pytest.mark.parametrize(
    ("size", "chunk_size"),
    [
        (8000 * MIB, 8 * MIB),
        (8000 * MIB + 1, 16 * MIB),
        (16 * GIB, 32 * MIB),
        (64_000 * MIB, 64 * MIB),
        (100 * GIB, 64 * MIB),
    ],
)
def test_the_chunk_size_doubles_with_the_file(size: int, chunk_size: int) -> None:
    assert chunking.plan(size, wish=None, limits=LIMITS).chunk_size == chunk_size
