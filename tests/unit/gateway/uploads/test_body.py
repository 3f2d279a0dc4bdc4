from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.staging import Buffers, StagingFull
from gateway.uploads.body import Blocks

pytestmark = pytest.mark.anyio


@given(pieces=st.lists(st.binary(max_size=40)), size=st.integers(1, 16), worth=st.integers(1, 16))
async def test_blocks_are_the_pieces_in_order(pieces: list[bytes], size: int, worth: int) -> None:
    taken: list[bytes] = []

    async def take(block: memoryview) -> None:
        taken.append(bytes(block))

    blocks = Blocks(take, buffers=Buffers(size), worth_taking=worth)
    async with aclosing(blocks):
        for piece in pieces:
            await blocks.add(piece)
        last = bytes(await blocks.last())

    assert b"".join([*taken, last]) == b"".join(pieces)
    assert all(min(worth, size) <= len(block) <= size for block in taken)
    assert len(last) <= size


async def test_the_next_block_grows_while_one_is_taken() -> None:
    taken: list[int] = []
    may_go_on = asyncio.Event()

    async def take(block: memoryview) -> None:
        taken.append(len(block))
        await may_go_on.wait()

    blocks = Blocks(take, buffers=Buffers(8), worth_taking=2)
    async with aclosing(blocks):
        for _ in range(9):
            await blocks.add(b"x")
            await asyncio.sleep(0)
        assert taken == [2], "the taker is busy with the first"
        may_go_on.set()
        await blocks.add(b"x" * 4)
        last = await blocks.last()

    assert taken == [2, 8]
    assert len(last) == 3


async def test_buffers_are_given_back_once_nobody_writes_from_them() -> None:
    buffers = Buffers(4, spare_max=2)
    held = [buffers.borrow() for _ in range(3)]
    for each in held:
        buffers.give_back(each)

    async def take(_: memoryview) -> None:
        raise StagingFull

    blocks = Blocks(take, buffers=buffers, worth_taking=1)
    await blocks.add(b"12")
    with pytest.raises(StagingFull):
        await blocks.last()
    await blocks.aclose()

    assert {id(buffers.borrow()) for _ in range(2)} == {id(each) for each in held[:2]}
    assert id(buffers.borrow()) not in {id(each) for each in held[:2]}
