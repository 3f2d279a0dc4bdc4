import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transfer import digests
from pipeline.transfer.digests import Crc32c


def state_after(content: bytes) -> bytes:
    digest = digests.sha256()
    digest.update(content)
    state = digest.state()
    assert state is not None, "this platform exports no SHA-256 state"
    return state


@given(st.binary(max_size=1_000), st.integers(0, 1_000))
def test_a_sha256_continues_from_its_state_at_any_byte(content: bytes, cut: int) -> None:
    cut = min(cut, len(content))

    digest = digests.sha256_from(state_after(content[:cut]), taken=cut)
    assert digest is not None
    digest.update(content[cut:])

    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_a_sha256_continues_after_hexdigest(blocks: list[bytes]) -> None:
    digest, taken = digests.sha256(), b""
    for block in blocks:
        digest.update(block)
        taken += block
        assert digest.hexdigest() == hashlib.sha256(taken).hexdigest()


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(b"", id="empty"),
        pytest.param(state_after(bytes(70))[:-1], id="too short"),
        pytest.param(state_after(bytes(71)), id="after another number of bytes"),
        pytest.param(state_after(bytes(70 + 64)), id="after one more block"),
        # If accepted, libcrypto would write beyond the block.
        pytest.param(
            state_after(bytes(70))[:-8] + struct.pack("=2I", 200, 32), id="with an overfull block"
        ),
        pytest.param(bytes(112), id="zeros"),
        pytest.param(
            b"".join(
                state_after(bytes(70))[at : at + 4][::-1]
                for at in range(0, len(state_after(b"")), 4)
            ),
            id="of another byte order",
        ),
    ],
)
def test_an_invalid_state_is_rejected(state: bytes) -> None:
    assert digests.sha256_from(state, taken=70) is None


@given(st.binary(max_size=300), st.integers(0, 300))
def test_a_crc32c_continues_from_its_value(content: bytes, cut: int) -> None:
    first, whole = Crc32c(), Crc32c()
    first.update(content[:cut])
    whole.update(content)

    second = Crc32c(first.value)
    second.update(content[cut:])

    assert second.digest() == whole.digest()


def test_a_crc32c_has_its_most_significant_byte_first() -> None:
    digest = Crc32c()
    digest.update(b"123456789")

    assert digest.digest().hex() == "e3069283"
