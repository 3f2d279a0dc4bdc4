"""A request's body, read in blocks of one size, with an end to patience."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Final

from gateway.problems import ReadingStopped
from gateway.staging import Buffers
from schemas.errors import ErrorCode

WORTH_TAKING_BYTES: Final = 256 * 1024
"""Less is not handed over before the end, even to a taker that has nothing to do."""


class ChunkTooLong(ReadingStopped):
    """The body goes on after the chunk's last byte."""

    code = ErrorCode.CHUNK_SIZE_MISMATCH

    def __init__(self, index: int, *, expected: int) -> None:
        super().__init__(f"chunk {index} has {expected} bytes, and the body is longer")


class BodyStalled(ReadingStopped):
    """The client stopped sending in the middle of the body."""

    code = ErrorCode.CHUNK_SIZE_MISMATCH

    def __init__(self, silence: timedelta) -> None:
        super().__init__(f"nothing came for {silence.total_seconds():g} seconds")


async def until_silence(body: AsyncIterator[bytes], *, longest: timedelta) -> AsyncIterator[bytes]:
    """Yield what comes.

    Raises:
        BodyStalled: nothing came for `longest`.
    """
    while True:
        try:
            async with asyncio.timeout(longest.total_seconds()):
                piece = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise BodyStalled(longest) from error
        yield piece


class Blocks:
    """Gathers pieces into blocks; one is filled while the other is taken.

    While a block is taken, the next one grows, until it is full: the slower who
    takes, the larger what is handed over at once. What is left at the end is not
    handed over but returned by `last`.
    """

    def __init__(
        self,
        take: Callable[[memoryview], Coroutine[None, None, None]],
        *,
        buffers: Buffers,
        worth_taking: int = WORTH_TAKING_BYTES,
    ) -> None:
        self._take = take
        self._buffers = buffers
        self._worth_taking = worth_taking
        self._filling = buffers.borrow()
        self._other: bytearray | None = None
        self._filled = 0
        self._taking: asyncio.Task[None] | None = None

    async def add(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            if self._filled == len(self._filling):
                await self._hand_over()
            count = min(len(rest), len(self._filling) - self._filled)
            self._filling[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]
        if self._filled >= self._worth_taking and self._is_idle:
            await self._hand_over()

    async def last(self) -> memoryview:
        """Return what is not handed over yet, once everything before it was taken."""
        await self._taken()
        return memoryview(self._filling)[: self._filled]

    async def aclose(self) -> None:
        """Wait for the block under way: its thread must not outlive the file it writes to."""
        if self._taking is not None:
            await asyncio.gather(self._taking, return_exceptions=True)
        for buffer in filter(None, (self._filling, self._other)):
            self._buffers.give_back(buffer)

    @property
    def _is_idle(self) -> bool:
        return self._taking is None or self._taking.done()

    async def _hand_over(self) -> None:
        await self._taken()
        block = memoryview(self._filling)[: self._filled]
        self._taking = asyncio.create_task(self._take(block))
        free = self._other or self._buffers.borrow()
        self._filling, self._other, self._filled = free, self._filling, 0

    async def _taken(self) -> None:
        if self._taking is not None:
            await self._taking
