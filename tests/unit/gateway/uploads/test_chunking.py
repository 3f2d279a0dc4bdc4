import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uploads import chunking
from gateway.uploads.chunking import Plan
from schemas.settings import GIB, MIB, UploadSettings

SETTINGS = UploadSettings(
    chunk_size_default=8 * MIB,
    chunk_size_min=64 * 1024,
    chunk_size_max=64 * MIB,
    chunk_count_max=20_000,
)

sizes = st.integers(0, 100 * 1024 * GIB)
requests = st.none() | st.integers(1, 2**40)


@given(sizes, requests)
def test_chunks_cover_the_file_once_and_in_order(size: int, requested: int | None) -> None:
    plan = chunking.plan(
        min(size, 1000 * SETTINGS.chunk_size_min), requested_size=requested, settings=SETTINGS
    )

    end = 0
    for index in range(plan.chunk_count):
        assert index in plan
        assert plan.offset_of(index) == end
        assert 0 < plan.size_of(index) <= plan.chunk_size
        end += plan.size_of(index)
    assert end == plan.size
    assert plan.chunk_count not in plan
    assert -1 not in plan


@given(sizes, requests)
def test_a_plan_has_at_most_the_allowed_number_of_chunks(size: int, requested: int | None) -> None:
    plan = chunking.plan(size, requested_size=requested, settings=SETTINGS)

    assert plan.chunk_count <= SETTINGS.chunk_count_max
    assert plan.chunk_size >= SETTINGS.chunk_size_min


@given(st.integers(0, GIB), requests)
def test_a_requested_size_within_the_limits_is_used(size: int, requested: int | None) -> None:
    plan = chunking.plan(size, requested_size=requested, settings=SETTINGS)

    expected = SETTINGS.chunk_size_default if requested is None else requested
    if (
        SETTINGS.chunk_size_min <= expected <= SETTINGS.chunk_size_max
        and size <= expected * SETTINGS.chunk_count_max
    ):
        assert plan.chunk_size == expected


@pytest.mark.parametrize(
    ("requested", "used"),
    [
        (1, SETTINGS.chunk_size_min),
        (2**40, SETTINGS.chunk_size_max),
        (None, SETTINGS.chunk_size_default),
    ],
)
def test_a_requested_size_outside_the_limits_is_clamped(requested: int | None, used: int) -> None:
    assert chunking.plan(GIB, requested_size=requested, settings=SETTINGS).chunk_size == used


def test_a_file_with_too_many_chunks_gets_larger_chunks_of_whole_mebibytes() -> None:
    plan = chunking.plan(100 * GIB, requested_size=MIB, settings=SETTINGS)

    assert plan.chunk_size == 6 * MIB
    assert plan.chunk_count == 17_067


def test_an_empty_file_has_no_chunks() -> None:
    plan = chunking.plan(0, requested_size=None, settings=SETTINGS)

    assert plan.chunk_count == 0
    assert 0 not in plan


def test_the_last_chunk_may_be_short() -> None:
    plan = Plan(size=10, chunk_size=4)

    assert [plan.size_of(index) for index in range(plan.chunk_count)] == [4, 4, 2]


@given(sizes)
def test_the_default_size_grows_to_limit_the_number_of_chunks(size: int) -> None:
    plan = chunking.plan(size, requested_size=None, settings=SETTINGS)

    if size <= SETTINGS.chunk_size_max * chunking.DEFAULT_COUNT_MAX:
        assert plan.chunk_count <= chunking.DEFAULT_COUNT_MAX
        assert SETTINGS.chunk_size_default <= plan.chunk_size <= SETTINGS.chunk_size_max
        mebibytes = plan.chunk_size // MIB
        assert mebibytes & (mebibytes - 1) == 0, "not a power of two"
        assert plan.chunk_size == SETTINGS.chunk_size_default or (
            size > plan.chunk_size // 2 * chunking.DEFAULT_COUNT_MAX
        ), "larger than necessary"


@given(sizes, sizes)
def test_a_larger_file_never_gets_smaller_chunks(one: int, other: int) -> None:
    small, large = sorted((one, other))

    assert (
        chunking.plan(small, requested_size=None, settings=SETTINGS).chunk_size
        <= chunking.plan(large, requested_size=None, settings=SETTINGS).chunk_size
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
def test_the_chunk_size_doubles_with_the_file_size(size: int, chunk_size: int) -> None:
    assert chunking.plan(size, requested_size=None, settings=SETTINGS).chunk_size == chunk_size
