import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.staging import Buffers, Sink, StagingFull
from gateway.uploads.body import BlockWriter

pytestmark = pytest.mark.anyio


def sink_of(process: Callable[[memoryview], Coroutine[None, None, None]]) -> Sink:
    class FakeSink:
        def append(self, block: memoryview) -> asyncio.Future[None]:
            return asyncio.ensure_future(process(block))

        async def complete(self, block: memoryview) -> bytes:
            raise NotImplementedError

    return FakeSink()


@given(
    pieces=st.lists(st.binary(max_size=40)), size=st.integers(1, 16), smallest=st.integers(1, 16)
)
async def test_the_blocks_are_the_pieces_in_order(
    pieces: list[bytes], size: int, smallest: int
) -> None:
    processed: list[bytes] = []

    async def process(block: memoryview) -> None:
        processed.append(bytes(block))

    blocks = BlockWriter(sink_of(process), buffers=Buffers(size), block_bytes_min=smallest)
    async with aclosing(blocks):
        for piece in pieces:
            await blocks.add(piece)
        last = bytes(blocks.last)

    assert b"".join([*processed, last]) == b"".join(pieces)
    assert all(min(smallest, size) <= len(block) <= size for block in processed)
    assert len(last) <= size


async def test_a_block_grows_while_the_sink_is_busy() -> None:
    processed: list[int] = []
    may_continue = asyncio.Event()

    async def process(block: memoryview) -> None:
        processed.append(len(block))
        await may_continue.wait()

    blocks = BlockWriter(sink_of(process), buffers=Buffers(8), block_bytes_min=2)
    async with aclosing(blocks):
        for _ in range(9):
            await blocks.add(b"x")
            await asyncio.sleep(0)
        assert processed == [2], "the sink is busy with the first block"
        may_continue.set()
        await blocks.add(b"x" * 4)
        last = blocks.last

    assert processed == [2, 8]
    assert len(last) == 3


async def test_buffers_are_given_back_after_a_failed_block() -> None:
    buffers = Buffers(4, spare_max=4)
    held = [buffers.borrow() for _ in range(4)]
    for each in held:
        buffers.give_back(each)

    async def process(_: memoryview) -> None:
        raise StagingFull

    blocks = BlockWriter(sink_of(process), buffers=buffers, block_bytes_min=1)
    async with aclosing(blocks):
        await blocks.add(b"1")
        await blocks.add(b"2")
        with pytest.raises(StagingFull):
            await blocks.add(b"more than two buffers")

    assert {id(buffers.borrow()) for _ in range(4)} == {id(each) for each in held}


async def test_a_buffer_is_not_given_back_while_its_block_is_in_flight() -> None:
    buffers = Buffers(4)
    may_end = asyncio.Event()
    read_from: list[object] = []

    async def process(block: memoryview) -> None:
        read_from.append(block.obj)
        await may_end.wait()

    blocks = BlockWriter(sink_of(process), buffers=buffers, block_bytes_min=1)
    await blocks.add(b"1")
    closing = asyncio.create_task(blocks.aclose())
    await asyncio.sleep(0)
    assert buffers.borrow() is not read_from[0]

    may_end.set()
    await closing
    assert any(buffers.borrow() is read_from[0] for _ in range(2))


def test_spare_buffers_are_limited() -> None:
    buffers = Buffers(1, spare_max=1)
    held = [buffers.borrow(), buffers.borrow()]
    for each in held:
        buffers.give_back(each)

    assert buffers.borrow() is held[0]
    assert buffers.borrow() is not held[1]
