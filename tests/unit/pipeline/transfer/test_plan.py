import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage import plan
from pipeline.storage.plan import MAX_PART_SIZE, MIN_PART_SIZE, Part, PartPlan, TooLargeForStore
from schemas.errors import ErrorCode
from schemas.settings import GIB, MIB

MAX_PARTS = 10_000
LARGEST_OBJECT = MAX_PARTS * MAX_PART_SIZE  # 48.8 TiB

preferred_sizes = st.integers(MIN_PART_SIZE, MAX_PART_SIZE)
max_parts = st.integers(1, MAX_PARTS)


@given(st.integers(0, LARGEST_OBJECT), preferred_sizes, max_parts)
def test_every_plan_respects_the_limits_of_s3(
    size_bytes: int, part_size: int, max_parts: int
) -> None:
    if size_bytes > max_parts * MAX_PART_SIZE:
        with pytest.raises(TooLargeForStore):
            plan.split(size_bytes, part_size=part_size, max_parts=max_parts)
        return

    cut = plan.split(size_bytes, part_size=part_size, max_parts=max_parts)

    assert len(cut) <= max_parts
    assert MIN_PART_SIZE <= cut.part_size <= MAX_PART_SIZE


@given(st.integers(0, 20_000 * MIB), preferred_sizes)
def test_parts_cover_the_file_in_order_without_gaps(size_bytes: int, part_size: int) -> None:
    cut = plan.split(size_bytes, part_size=part_size, max_parts=1_000)

    end = 0
    for number, part in enumerate(cut, start=1):
        assert (part.number, part.offset) == (number, end)
        assert 0 < part.size_bytes <= cut.part_size
        end += part.size_bytes
    assert end == size_bytes
    assert all(part.size_bytes == cut.part_size for part in list(cut)[:-1])


@given(st.integers(0, 20_000 * MIB), preferred_sizes)
def test_has_part_accepts_exactly_the_parts_of_the_plan(size_bytes: int, part_size: int) -> None:
    cut = plan.split(size_bytes, part_size=part_size, max_parts=1_000)

    for part in cut:
        assert cut.has_part(number=part.number, size_bytes=part.size_bytes)
        assert not cut.has_part(number=part.number, size_bytes=part.size_bytes + 1)
    assert not cut.has_part(number=len(cut) + 1, size_bytes=1)


@given(st.integers(0, LARGEST_OBJECT), preferred_sizes)
def test_the_preferred_part_size_is_kept_if_it_is_sufficient(
    size_bytes: int, part_size: int
) -> None:
    cut = plan.split(size_bytes, part_size=part_size, max_parts=MAX_PARTS)

    if size_bytes <= MAX_PARTS * part_size:
        assert cut.part_size == part_size
    else:
        assert cut.part_size > part_size


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (0, []),
        (1, [Part(1, offset=0, size_bytes=1)]),
        (5 * MIB, [Part(1, offset=0, size_bytes=5 * MIB)]),
        (
            5 * MIB + 1,
            [Part(1, offset=0, size_bytes=5 * MIB), Part(2, offset=5 * MIB, size_bytes=1)],
        ),
    ],
)
def test_small_files_have_the_expected_parts(size_bytes: int, expected: list[Part]) -> None:
    assert list(plan.split(size_bytes, part_size=5 * MIB, max_parts=1_000)) == expected


@pytest.mark.parametrize(
    ("size_bytes", "is_multipart"), [(0, False), (1, False), (5 * MIB, False), (5 * MIB + 1, True)]
)
def test_a_file_of_one_part_needs_no_multipart_upload(
    size_bytes: int, *, is_multipart: bool
) -> None:
    cut = plan.split(size_bytes, part_size=5 * MIB, max_parts=1_000)

    assert cut.is_multipart is is_multipart


def test_a_low_limit_of_parts_makes_parts_larger() -> None:
    cut = plan.split(100 * GIB, part_size=16 * MIB, max_parts=1_000)

    assert cut.part_size == 103 * MIB
    assert len(cut) == 995


def test_the_largest_object_can_be_planned() -> None:
    cut = plan.split(LARGEST_OBJECT, part_size=16 * MIB, max_parts=MAX_PARTS)

    assert (cut.part_size, len(cut)) == (MAX_PART_SIZE, MAX_PARTS)


def test_a_file_larger_than_the_largest_object_is_refused() -> None:
    with pytest.raises(TooLargeForStore) as refused:
        plan.split(LARGEST_OBJECT + 1, part_size=16 * MIB, max_parts=MAX_PARTS)

    assert refused.value.code is ErrorCode.FILE_TOO_LARGE
    assert not refused.value.retryable


@given(st.integers(0, LARGEST_OBJECT), st.integers(1, 2 * MAX_PART_SIZE), max_parts)
def test_chunks_become_parts_only_within_the_limits_of_s3(
    size_bytes: int, chunk_size: int, max_parts: int
) -> None:
    cut = plan.along_chunks(size_bytes, chunk_size=chunk_size, max_parts=max_parts)

    too_many = -(-size_bytes // chunk_size) > max_parts
    if too_many or not MIN_PART_SIZE <= chunk_size <= MAX_PART_SIZE:
        assert cut is None
    else:
        assert cut is not None
        assert (cut.size_bytes, cut.part_size) == (size_bytes, chunk_size)


@pytest.mark.parametrize(
    ("size_bytes", "parts"),
    [(0, None), (1, None), (63, None), (64, 1), (65, None), (128, 2), (130, 3), (131, None)],
)
def test_parts_in_counts_only_whole_parts(size_bytes: int, parts: int | None) -> None:
    assert PartPlan(130, part_size=64).parts_in(size_bytes) == parts
