"""A request's body, read in blocks, with an end to patience."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Final

from gateway.http.problems import ReadingStopped
from gateway.staging import Buffers
from gateway.staging.serial_executor import until_done
from schemas.errors import ErrorCode

WORTH_TAKING_BYTES: Final = 256 * 1024
"""Less is not handed over before the end, even to a taker that has nothing to do."""

TAKEN_AT_ONCE: Final = 2
"""Blocks handed over and not yet dealt with; a request holds one buffer more."""


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
    """Gathers pieces into blocks; one is filled while those before it are taken.

    A taker with nothing to do gets what there is, once that is worth it. While it
    is busy the next block grows until it is full: the slower who takes, the larger
    what is handed over at once. What is left at the end is not handed over: it is `last`.
    """

    def __init__(
        self,
        take: Callable[[memoryview], asyncio.Future[None]],
        *,
        buffers: Buffers,
        worth_taking: int = WORTH_TAKING_BYTES,
    ) -> None:
        self._take = take
        self._buffers = buffers
        self._worth_taking = worth_taking
        self._filling = buffers.borrow()
        self._filled = 0
        self._being_taken: deque[tuple[asyncio.Future[None], bytearray]] = deque()

    async def add(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            if self._filled == len(self._filling):
                await self._hand_over()
            count = min(len(rest), len(self._filling) - self._filled)
            self._filling[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]
        if self._filled >= self._worth_taking and all(
            taken.done() for taken, _ in self._being_taken
        ):
            await self._hand_over()

    @property
    def last(self) -> memoryview:
        """What is not handed over yet; what was need not be dealt with before it."""
        return memoryview(self._filling)[: self._filled]

    async def aclose(self) -> None:
        """Wait for the blocks under way, then give the buffers back."""
        under_way = [taken for taken, _ in self._being_taken]
        await until_done(under_way)
        for taken in under_way:
            # Looked at, lest it be reported as overlooked: who reads the body knows of it.
            taken.exception()
        for buffer in (self._filling, *(buffer for _, buffer in self._being_taken)):
            self._buffers.give_back(buffer)

    async def _hand_over(self) -> None:
        free = (
            self._buffers.borrow()
            if len(self._being_taken) < TAKEN_AT_ONCE
            else await self._oldest_taken()
        )
        taken = self._take(memoryview(self._filling)[: self._filled])
        self._being_taken.append((taken, self._filling))
        self._filling, self._filled = free, 0

    async def _oldest_taken(self) -> bytearray:
        taken, buffer = self._being_taken[0]
        await until_done([taken])
        taken.result()
        self._being_taken.popleft()
        return buffer
