"""Reading the body of a request in blocks."""

from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.http.problems import ReadingStopped
from gateway.staging import Buffers, Sink
from gateway.staging.serial_executor import until_done
from schemas.errors import ErrorCode

if TYPE_CHECKING:
    import asyncio

BLOCK_BYTES_MIN: Final = 256 * 1024
"""The sink gets a smaller block only at the end of the body, even if it is idle."""

BLOCKS_IN_FLIGHT_MAX: Final = 2
"""Blocks that the sink has not processed yet; a request holds one buffer more."""


class ChunkTooLong(ReadingStopped):
    """The body continues after the last byte of its chunk."""

    code = ErrorCode.CHUNK_SIZE_MISMATCH

    def __init__(self, index: int, *, expected: int) -> None:
        super().__init__(f"chunk {index} has {expected} bytes, and the body is longer")


class ChunkTakenOver(ReadingStopped):
    """A newer request receives the chunk; this one received it too slowly."""

    code = ErrorCode.CHUNK_IN_PROGRESS
    retryable = True

    def __init__(self, index: int) -> None:
        super().__init__(
            f"a newer request sends chunk {index}; the bytes of this one arrived too slowly"
        )


class BlockWriter:
    """Collects pieces into blocks, and fills one block while the sink processes earlier blocks.

    An idle sink gets a block as soon as it has the minimum size. While the sink is busy
    the block grows until its buffer is full: the slower the sink, the larger the blocks.
    The sink does not get the rest at the end of the body: `last` returns it.
    """

    def __init__(
        self, sink: Sink, *, buffers: Buffers, block_bytes_min: int = BLOCK_BYTES_MIN
    ) -> None:
        self._sink = sink
        self._buffers = buffers
        self._block_bytes_min = block_bytes_min
        self._filling = buffers.borrow()
        self._filled = 0
        self._in_flight: deque[tuple[asyncio.Future[None], bytearray]] = deque()

    async def add(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            if self._filled == len(self._filling):
                await self._hand_over()
            count = min(len(rest), len(self._filling) - self._filled)
            self._filling[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]
        if self._filled >= self._block_bytes_min and all(
            processed.done() for processed, _ in self._in_flight
        ):
            await self._hand_over()

    @property
    def last(self) -> memoryview:
        """The bytes that the sink has not got yet."""
        return memoryview(self._filling)[: self._filled]

    async def aclose(self) -> None:
        """Wait for the blocks in flight, then give the buffers back."""
        in_flight = [processed for processed, _ in self._in_flight]
        await until_done(in_flight)
        for processed in in_flight:
            # The exception is retrieved because asyncio would otherwise log it; the reader of the
            # body has the error already.
            processed.exception()
        for buffer in (self._filling, *(buffer for _, buffer in self._in_flight)):
            self._buffers.give_back(buffer)

    async def _hand_over(self) -> None:
        free = (
            self._buffers.borrow()
            if len(self._in_flight) < BLOCKS_IN_FLIGHT_MAX
            else await self._oldest_processed()
        )
        processed = self._sink.append(self.last)
        self._in_flight.append((processed, self._filling))
        self._filling, self._filled = free, 0

    async def _oldest_processed(self) -> bytearray:
        processed, buffer = self._in_flight[0]
        await until_done([processed])
        processed.result()
        self._in_flight.popleft()
        return buffer
