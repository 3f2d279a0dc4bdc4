from itertools import permutations

import pytest

from pipeline.storage.port import StoredPart
from pipeline.transfer.checks import CheckState, FileCheck
from pipeline.transfer.plan import PartPlan
from pipeline.transfer.resume import ResumeState
from tests.unit.pipeline.transfer.staging import CONTENT, PART_SIZE, md5, part

PLAN = PartPlan(4 * PART_SIZE, part_size=PART_SIZE)


def digest_all(prefix: ResumeState, *, without_state: int | None = None) -> None:
    check = FileCheck.of_any(size_bytes=PLAN.size_bytes)
    for cut in PLAN:
        check.update(part(cut.number))
        state: CheckState | None = None if cut.number == without_state else check.state()
        prefix.digested(cut, md5=md5(part(cut.number)), state=state)


def stored(number: int, *, etag: str | None = None, etag_is_digest: bool = True) -> StoredPart:
    etag = etag or md5(part(number)).hex()
    return StoredPart(number, PART_SIZE, etag=etag, etag_is_digest=etag_is_digest)


def reached(prefix: ResumeState) -> int:
    """Return how many parts are before the checkpoint."""
    taken = 0 if prefix.checkpoint is None else prefix.checkpoint.digested_bytes
    assert taken % PART_SIZE == 0
    return taken // PART_SIZE


@pytest.mark.parametrize("order", list(permutations(range(1, 5))))
def test_a_checkpoint_has_no_gap_before_it(order: tuple[int, ...]) -> None:
    prefix = ResumeState(PLAN, version="")
    digest_all(prefix)

    for at, number in enumerate(order, start=1):
        prefix.stored(stored(number))
        done = set(order[:at])
        without_gap = next(n for n in range(5) if n + 1 not in done)
        assert prefix.parts == reached(prefix) == without_gap

    assert prefix.is_whole


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(stored(2, etag="opaque"), id="of no known form"),
        pytest.param(stored(2, etag=md5(b"other").hex()), id="of other bytes"),
        pytest.param(stored(2, etag="opaque", etag_is_digest=False), id="sealed, of another form"),
    ],
)
def test_it_ends_before_a_part_that_nobody_could_recognise(other: StoredPart) -> None:
    prefix = ResumeState(PLAN, version="")
    digest_all(prefix)

    for found in (stored(1), other, stored(3), stored(4)):
        prefix.stored(found)

    assert prefix.parts == reached(prefix) == 1
    assert not prefix.is_whole


def test_it_goes_on_over_a_part_whose_etag_the_store_says_is_no_digest() -> None:
    prefix = ResumeState(PLAN, version="")
    digest_all(prefix)

    prefix.stored(stored(1, etag=md5(b"sealed").hex(), etag_is_digest=False))
    prefix.stored(stored(2, etag=md5(part(2)).hex().upper()))

    assert reached(prefix) == 2


def test_a_part_after_which_no_check_goes_on_is_passed_over() -> None:
    prefix = ResumeState(PLAN, version="")
    digest_all(prefix, without_state=2)

    prefix.stored(stored(1))
    prefix.stored(stored(2))
    assert (prefix.parts, reached(prefix)) == (2, 1)
    prefix.stored(stored(3))
    assert (prefix.parts, reached(prefix)) == (3, 3)


def test_what_is_before_a_checkpoint_is_taken_up_only_with_all_its_parts() -> None:
    first = ResumeState(PLAN, version="")
    digest_all(first)
    listed = {number: stored(number) for number in range(1, 4)}
    for found in listed.values():
        first.stored(found)
    assert first.checkpoint is not None

    for lost in listed:
        check = FileCheck.of_any(size_bytes=PLAN.size_bytes)
        left = {number: found for number, found in listed.items() if number != lost}
        assert not ResumeState(PLAN, version="").take_up(first.checkpoint, stored=left, check=check)
    check = FileCheck.of_any(size_bytes=PLAN.size_bytes)
    second = ResumeState(PLAN, version="")
    assert second.take_up(first.checkpoint, stored=listed, check=check)

    assert (second.parts, second.checkpoint) == (3, first.checkpoint)
    check.update(part(4))
    whole = FileCheck.of_any(size_bytes=PLAN.size_bytes)
    whole.update(CONTENT[: PLAN.size_bytes])
    assert check.finish(declared=None) == whole.finish(declared=None)
