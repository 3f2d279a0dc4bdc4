import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.staging import Buffers, StagingFull
from gateway.uploads.body import Blocks

pytestmark = pytest.mark.anyio


def soon(
    take: Callable[[memoryview], Coroutine[None, None, None]],
) -> Callable[[memoryview], asyncio.Future[None]]:
    return lambda block: asyncio.ensure_future(take(block))


@given(pieces=st.lists(st.binary(max_size=40)), size=st.integers(1, 16), worth=st.integers(1, 16))
async def test_blocks_are_the_pieces_in_order(pieces: list[bytes], size: int, worth: int) -> None:
    taken: list[bytes] = []

    async def take(block: memoryview) -> None:
        taken.append(bytes(block))

    blocks = Blocks(soon(take), buffers=Buffers(size), worth_taking=worth)
    async with aclosing(blocks):
        for piece in pieces:
            await blocks.add(piece)
        last = bytes(blocks.last)

    assert b"".join([*taken, last]) == b"".join(pieces)
    assert all(min(worth, size) <= len(block) <= size for block in taken)
    assert len(last) <= size


async def test_the_next_block_grows_while_one_is_taken() -> None:
    taken: list[int] = []
    may_go_on = asyncio.Event()

    async def take(block: memoryview) -> None:
        taken.append(len(block))
        await may_go_on.wait()

    blocks = Blocks(soon(take), buffers=Buffers(8), worth_taking=2)
    async with aclosing(blocks):
        for _ in range(9):
            await blocks.add(b"x")
            await asyncio.sleep(0)
        assert taken == [2], "the taker is busy with the first"
        may_go_on.set()
        await blocks.add(b"x" * 4)
        last = blocks.last

    assert taken == [2, 8]
    assert len(last) == 3


async def test_buffers_are_given_back_also_where_a_block_could_not_be_taken() -> None:
    buffers = Buffers(4, spare_max=4)
    held = [buffers.borrow() for _ in range(4)]
    for each in held:
        buffers.give_back(each)

    async def take(_: memoryview) -> None:
        raise StagingFull

    blocks = Blocks(soon(take), buffers=buffers, worth_taking=1)
    async with aclosing(blocks):
        await blocks.add(b"1")
        await blocks.add(b"2")
        with pytest.raises(StagingFull):
            await blocks.add(b"more than two buffers")

    assert {id(buffers.borrow()) for _ in range(4)} == {id(each) for each in held}


async def test_a_buffer_is_not_given_back_while_its_block_is_taken() -> None:
    buffers = Buffers(4)
    may_end = asyncio.Event()
    read_from: list[object] = []

    async def take(block: memoryview) -> None:
        read_from.append(block.obj)
        await may_end.wait()

    blocks = Blocks(soon(take), buffers=buffers, worth_taking=1)
    await blocks.add(b"1")
    closing = asyncio.create_task(blocks.aclose())
    await asyncio.sleep(0)
    assert buffers.borrow() is not read_from[0]

    may_end.set()
    await closing
    assert any(buffers.borrow() is read_from[0] for _ in range(2))


def test_no_more_buffers_are_kept_than_may_be() -> None:
    buffers = Buffers(1, spare_max=1)
    held = [buffers.borrow(), buffers.borrow()]
    for each in held:
        buffers.give_back(each)

    assert buffers.borrow() is held[0]
    assert buffers.borrow() is not held[1]
