from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.plan import PartPlan
from pipeline.storage.port import StoredPart
from pipeline.transfer.checks import CheckState, FileCheck
from pipeline.transfer.resume import Checkpoint, CheckpointState, ResumeState, source_identity
from tests.unit.pipeline.transfer.staging import CONTENT, PART_SIZE, md5, part

PLAN = PartPlan(4 * PART_SIZE, part_size=PART_SIZE)

STATE = CheckpointState(
    CheckState(taken=2**40, sha256=bytes(112), crc32c=2**32 - 1),
    parts_md5=bytes(16),
    source=source_identity(PLAN, version="etag"),
)


def test_a_checkpoint_is_small_and_decodes_to_what_was_encoded() -> None:
    checkpoint = STATE.encode()

    assert CheckpointState.decode(checkpoint) == STATE
    assert checkpoint.digested_bytes == 2**40
    assert len(checkpoint.state) < 256


@given(st.integers(0, 8 * len(STATE.encode().state) - 1))
def test_a_checkpoint_with_a_flipped_bit_is_rejected(at: int) -> None:
    checkpoint = STATE.encode()
    state = bytearray(checkpoint.state)
    state[at // 8] ^= 1 << at % 8

    assert CheckpointState.decode(replace(checkpoint, state=bytes(state))) is None


@given(st.binary(max_size=300))
def test_bytes_that_are_not_a_checkpoint_are_rejected(state: bytes) -> None:
    assert CheckpointState.decode(Checkpoint(0, state=state)) is None


def test_a_checkpoint_with_the_wrong_number_of_bytes_is_rejected() -> None:
    assert CheckpointState.decode(replace(STATE.encode(), digested_bytes=2**40 - 1)) is None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(source_identity(PLAN, version="other"), id="version"),
        pytest.param(
            source_identity(replace(PLAN, size_bytes=PLAN.size_bytes + 1), version="etag"),
            id="size",
        ),
        pytest.param(
            source_identity(replace(PLAN, part_size=PART_SIZE + 1), version="etag"), id="part size"
        ),
    ],
)
def test_a_different_source_or_plan_has_a_different_identity(other: bytes) -> None:
    assert other != STATE.source


def digest_all(state: ResumeState, *, without_check_state: int | None = None) -> None:
    check = FileCheck.of_any(size_bytes=PLAN.size_bytes)
    for each in PLAN:
        check.update(part(each.number))
        state.digested(
            each,
            md5=md5(part(each.number)),
            state=None if each.number == without_check_state else check.state(),
        )


def stored(number: int, *, etag: str | None = None, etag_is_digest: bool = True) -> StoredPart:
    etag = etag or md5(part(number)).hex()
    return StoredPart(number, PART_SIZE, etag=etag, etag_is_digest=etag_is_digest)


def parts_before_checkpoint(state: ResumeState) -> int:
    digested = 0 if state.checkpoint is None else state.checkpoint.digested_bytes
    assert digested % PART_SIZE == 0
    return digested // PART_SIZE


@pytest.mark.parametrize("order", list(permutations(range(1, 5))))
def test_a_checkpoint_covers_only_parts_without_a_gap(order: tuple[int, ...]) -> None:
    state = ResumeState(PLAN, version="")
    digest_all(state)

    for at, number in enumerate(order, start=1):
        state.stored(stored(number))
        done = set(order[:at])
        without_gap = next(n for n in range(5) if n + 1 not in done)
        assert state.parts == parts_before_checkpoint(state) == without_gap

    assert state.is_complete


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(stored(2, etag="opaque"), id="an opaque ETag"),
        pytest.param(stored(2, etag=md5(b"other").hex()), id="the ETag of other bytes"),
        pytest.param(stored(2, etag="opaque", etag_is_digest=False), id="an encrypted opaque ETag"),
    ],
)
def test_a_checkpoint_ends_before_a_part_whose_etag_is_not_its_md5(
    other: StoredPart,
) -> None:
    state = ResumeState(PLAN, version="")
    digest_all(state)

    for found in (stored(1), other, stored(3), stored(4)):
        state.stored(found)

    assert state.parts == parts_before_checkpoint(state) == 1
    assert not state.is_complete


def test_a_checkpoint_covers_an_encrypted_part_whose_etag_is_not_its_md5() -> None:
    state = ResumeState(PLAN, version="")
    digest_all(state)

    state.stored(stored(1, etag=md5(b"encrypted").hex(), etag_is_digest=False))
    state.stored(stored(2, etag=md5(part(2)).hex().upper()))

    assert parts_before_checkpoint(state) == 2


def test_a_part_without_an_exportable_check_state_gets_no_checkpoint() -> None:
    state = ResumeState(PLAN, version="")
    digest_all(state, without_check_state=2)

    state.stored(stored(1))
    state.stored(stored(2))
    assert (state.parts, parts_before_checkpoint(state)) == (2, 1)
    state.stored(stored(3))
    assert (state.parts, parts_before_checkpoint(state)) == (3, 3)


def test_a_checkpoint_is_resumed_only_if_the_store_has_all_its_parts() -> None:
    first = ResumeState(PLAN, version="")
    digest_all(first)
    listed = {number: stored(number) for number in range(1, 4)}
    for found in listed.values():
        first.stored(found)
    assert first.checkpoint is not None

    for lost in listed:
        check = FileCheck.of_any(size_bytes=PLAN.size_bytes)
        left = {number: found for number, found in listed.items() if number != lost}
        assert not ResumeState(PLAN, version="").resume(first.checkpoint, stored=left, check=check)
    check = FileCheck.of_any(size_bytes=PLAN.size_bytes)
    second = ResumeState(PLAN, version="")
    assert second.resume(first.checkpoint, stored=listed, check=check)

    assert (second.parts, second.checkpoint) == (3, first.checkpoint)
    check.update(part(4))
    whole = FileCheck.of_any(size_bytes=PLAN.size_bytes)
    whole.update(CONTENT[: PLAN.size_bytes])
    assert check.finish(declared=None) == whole.finish(declared=None)
