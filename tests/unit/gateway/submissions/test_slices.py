import hashlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uploads.oneshot.splitter import Slices

pytestmark = pytest.mark.anyio


async def coming(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@given(pieces=st.lists(st.binary(max_size=20), max_size=20), slice_bytes=st.integers(1, 30))
async def test_all_slices_but_the_last_are_full_and_together_they_are_the_whole(
    pieces: list[bytes], slice_bytes: int
) -> None:
    slices = Slices(coming(pieces), slice_bytes=slice_bytes)
    whole = b"".join(pieces)

    cut = []
    while await slices.has_more():
        cut.append(b"".join([piece async for piece in slices.next_slice()]))

    assert b"".join(cut) == whole
    assert all(len(one) == slice_bytes for one in cut[:-1])
    assert all(cut)
    assert (slices.size, slices.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


async def test_what_is_read_on_is_known_by_its_digest() -> None:
    slices = Slices(coming([b"a", b"", b"bc"]), slice_bytes=1)

    await slices.read_on()

    assert (slices.size, slices.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    assert not await slices.has_more()
