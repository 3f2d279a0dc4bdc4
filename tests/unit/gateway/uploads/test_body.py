from __future__ import annotations

from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uploads.body import Blocks

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@given(pieces=st.lists(st.binary(max_size=40)), block_bytes=st.integers(1, 16))
async def test_blocks_are_the_pieces_in_order_and_all_but_the_last_are_full(
    pieces: list[bytes], block_bytes: int
) -> None:
    taken: list[bytes] = []

    async def take(block: memoryview) -> None:
        taken.append(bytes(block))

    blocks = Blocks(take, block_bytes=block_bytes)
    async with aclosing(blocks):
        for piece in pieces:
            await blocks.add(piece)
        last = bytes(await blocks.last())

    assert b"".join([*taken, last]) == b"".join(pieces)
    assert {len(block) for block in taken} <= {block_bytes}
    assert len(last) <= block_bytes
    assert last or not taken, "the last block is handed over by itself"
