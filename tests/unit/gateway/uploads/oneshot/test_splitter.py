import hashlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uploads.oneshot.splitter import ChunkSplitter

pytestmark = pytest.mark.anyio


async def arriving(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@given(pieces=st.lists(st.binary(max_size=20), max_size=20), chunk_bytes=st.integers(1, 30))
async def test_only_the_last_chunk_may_be_short(pieces: list[bytes], chunk_bytes: int) -> None:
    splitter = ChunkSplitter(arriving(pieces), chunk_bytes=chunk_bytes)
    whole = b"".join(pieces)

    chunks = []
    while await splitter.has_more():
        chunks.append(b"".join([piece async for piece in splitter.next_chunk()]))

    assert b"".join(chunks) == whole
    assert all(len(one) == chunk_bytes for one in chunks[:-1])
    assert all(chunks)
    assert (splitter.size, splitter.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


async def test_skipped_bytes_are_part_of_the_digest() -> None:
    splitter = ChunkSplitter(arriving([b"a", b"", b"bc"]), chunk_bytes=1)

    await splitter.skip_rest()

    assert (splitter.size, splitter.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    assert not await splitter.has_more()
