import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.staging import Buffers, Sink, StagingFull
from gateway.uploads.body import BlockWriter
from schemas.ids import TenantId
from tests.factories.buffers import buffers_of

pytestmark = pytest.mark.anyio

TENANT = TenantId(uuid4())


def sink_of(process: Callable[[memoryview], Coroutine[None, None, None]]) -> Sink:
    class FakeSink:
        def append(self, block: memoryview) -> asyncio.Future[None]:
            return asyncio.ensure_future(process(block))

        async def complete(self, block: memoryview, *, processed: Callable[[], None]) -> bytes:
            raise NotImplementedError

    return FakeSink()


def writer_to(
    process: Callable[[memoryview], Coroutine[None, None, None]],
    *,
    buffers: Buffers,
    block_bytes_min: int = 1,
) -> BlockWriter:
    return BlockWriter(
        sink_of(process), buffers=buffers, tenant_id=TENANT, block_bytes_min=block_bytes_min
    )


@given(
    pieces=st.lists(st.binary(max_size=40)), size=st.integers(1, 16), smallest=st.integers(1, 16)
)
async def test_the_blocks_are_the_pieces_in_order(
    pieces: list[bytes], size: int, smallest: int
) -> None:
    processed: list[bytes] = []

    async def process(block: memoryview) -> None:
        processed.append(bytes(block))

    blocks = writer_to(process, buffers=buffers_of(size), block_bytes_min=smallest)
    async with aclosing(blocks):
        for piece in pieces:
            await blocks.add(piece)
        last = bytes(blocks.last())

    assert b"".join([*processed, last]) == b"".join(pieces)
    assert all(min(smallest, size) <= len(block) <= size for block in processed)
    assert len(last) <= size


async def test_a_block_grows_while_the_sink_is_busy() -> None:
    processed: list[int] = []
    may_continue = asyncio.Event()

    async def process(block: memoryview) -> None:
        processed.append(len(block))
        await may_continue.wait()

    blocks = writer_to(process, buffers=buffers_of(8), block_bytes_min=2)
    async with aclosing(blocks):
        for _ in range(9):
            await blocks.add(b"x")
            await asyncio.sleep(0)
        assert processed == [2], "the sink is busy with the first block"
        may_continue.set()
        await blocks.add(b"x" * 4)
        last = blocks.last()

    assert processed == [2, 8]
    assert len(last) == 3


async def test_all_buffers_are_given_back_after_a_failed_block() -> None:
    buffers = buffers_of(4)

    async def process(_: memoryview) -> None:
        raise StagingFull

    blocks = writer_to(process, buffers=buffers)
    async with aclosing(blocks):
        await blocks.add(b"1")
        with pytest.raises(StagingFull):
            await blocks.add(b"more than three buffers")

    await asyncio.sleep(0)
    assert buffers.lent == 0


async def test_a_buffer_is_not_given_back_while_its_block_is_in_flight() -> None:
    buffers = buffers_of(4)
    may_end = asyncio.Event()

    async def process(_: memoryview) -> None:
        await may_end.wait()

    blocks = writer_to(process, buffers=buffers)
    await blocks.add(b"1")
    closing = asyncio.create_task(blocks.aclose())
    await asyncio.sleep(0)
    assert buffers.lent == 1

    may_end.set()
    await closing
    await asyncio.sleep(0)
    assert buffers.lent == 0


async def test_a_body_that_pauses_holds_no_buffer_and_loses_no_byte() -> None:
    buffers = buffers_of(8, idle_check=timedelta(milliseconds=5))
    processed: list[bytes] = []
    is_processed = asyncio.Event()

    async def process(block: memoryview) -> None:
        processed.append(bytes(block))
        is_processed.set()

    blocks = writer_to(process, buffers=buffers, block_bytes_min=8)
    async with aclosing(blocks), asyncio.timeout(5):
        await blocks.add(b"first")
        await is_processed.wait()
        await asyncio.sleep(0)
        assert (processed, buffers.lent) == ([b"first"], 0)

        await blocks.add(b"second")
        assert bytes(blocks.last()) == b"second"


async def test_a_body_that_waits_for_its_next_piece_gives_its_empty_buffer_back() -> None:
    buffers = buffers_of(4, count=1)

    async def process(_: memoryview) -> None:
        """Store nothing."""

    streaming = writer_to(process, buffers=buffers)
    other = writer_to(process, buffers=buffers, block_bytes_min=4)
    async with aclosing(streaming), aclosing(other), asyncio.timeout(5):
        await streaming.add(b"full")
        await streaming.ready()
        assert buffers.lent == 1

        await other.add(b"x")
        assert bytes(other.last()) == b"x"
