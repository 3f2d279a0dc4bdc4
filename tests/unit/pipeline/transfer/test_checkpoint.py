from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transfer.checkpoint import Checkpoint, CheckpointState, identity
from pipeline.transfer.checks import CheckState

BEHIND = CheckpointState(
    CheckState(taken=2**40, sha256=bytes(112), crc32c=2**32 - 1),
    parts_md5=bytes(16),
    source=identity(version="etag", size_bytes=2**41, part_size=2**25),
)


def test_what_was_written_is_read_and_is_small() -> None:
    checkpoint = BEHIND.checkpoint()

    assert CheckpointState.of(checkpoint) == BEHIND
    assert checkpoint.digested_bytes == 2**40
    assert len(checkpoint.state) < 256


@given(st.integers(0, 8 * len(BEHIND.checkpoint().state) - 1))
def test_no_bit_of_it_may_be_another(at: int) -> None:
    checkpoint = BEHIND.checkpoint()
    state = bytearray(checkpoint.state)
    state[at // 8] ^= 1 << at % 8

    assert CheckpointState.of(replace(checkpoint, state=bytes(state))) is None


@given(st.binary(max_size=300))
def test_other_bytes_are_not_believed(state: bytes) -> None:
    assert CheckpointState.of(Checkpoint(0, state=state)) is None


def test_it_belongs_to_its_number_of_bytes() -> None:
    assert CheckpointState.of(replace(BEHIND.checkpoint(), digested_bytes=2**40 - 1)) is None


@pytest.mark.parametrize(
    "other",
    [
        identity(version="other", size_bytes=2**41, part_size=2**25),
        identity(version="etag", size_bytes=2**41 + 1, part_size=2**25),
        identity(version="etag", size_bytes=2**41, part_size=2**26),
    ],
)
def test_another_source_or_cut_has_another_identity(other: bytes) -> None:
    assert other != BEHIND.source
