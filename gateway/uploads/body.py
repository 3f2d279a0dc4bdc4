"""A request's body, read in blocks of one size, with an end to patience."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Final

from gateway.problems import ReadingStopped
from schemas.errors import ErrorCode

BLOCK_BYTES: Final = 256 * 1024
"""A request holds two of these, whatever the size of its chunk."""


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
    """Gathers small pieces into large blocks; one is filled while the other is taken.

    The last block, full or not, is not handed over but returned by `last`.
    """

    def __init__(
        self, take: Callable[[memoryview], Coroutine[None, None, None]], *, block_bytes: int
    ) -> None:
        self._take = take
        self._filling = bytearray(block_bytes)
        self._other = bytearray(block_bytes)
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

    async def last(self) -> memoryview:
        """Return what is not handed over yet, once everything before it was taken."""
        await self._taken()
        return memoryview(self._filling)[: self._filled]

    async def aclose(self) -> None:
        """Wait for the block under way: its thread must not outlive the file it writes to."""
        if self._taking is not None:
            await asyncio.gather(self._taking, return_exceptions=True)

    async def _hand_over(self) -> None:
        await self._taken()
        block = memoryview(self._filling)[: self._filled]
        self._taking = asyncio.create_task(self._take(block))
        self._filling, self._other, self._filled = self._other, self._filling, 0

    async def _taken(self) -> None:
        if self._taking is not None:
            await self._taking
