"""Reading the body of a request in blocks."""

import asyncio
from typing import Final

from gateway.http.problems import ReadingStopped
from gateway.staging import Buffers, Sink
from gateway.staging.serial_executor import until_done
from schemas.errors import ErrorCode
from schemas.ids import TenantId

BLOCK_BYTES_MIN: Final = 256 * 1024
"""The sink gets a smaller block only at the end of the body, even if it is idle."""

BLOCKS_MAX: Final = 3
"""Blocks of a body in memory: one is filled, the others are being processed."""


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
    A body that pauses gives way: the sink gets a smaller block, and the body holds no buffer.
    The sink gets the rest at the end of the body with `complete`.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        buffers: Buffers,
        tenant_id: TenantId,
        block_bytes_min: int = BLOCK_BYTES_MIN,
    ) -> None:
        self._sink = sink
        self._buffers = buffers
        self._tenant_id = tenant_id
        self._block_bytes_min = block_bytes_min
        self._filling: memoryview | None = None
        self._filled = 0
        self._is_streaming = False
        self._in_flight: list[asyncio.Future[None]] = []
        self._failure: BaseException | None = None

    async def ready(self) -> None:
        """Wait for room for the next piece, if the body arrives without pauses.

        Call it while no piece is in memory, so that a body that waits costs nothing.

        Raises:
            BuffersBusy: no buffer is free.
        """
        if self._is_streaming and self._filling is None:
            await self._borrow(waiting_bytes=0)

    async def add(self, piece: bytes) -> None:
        """Copy a piece.

        Raises:
            BuffersBusy: no buffer is free.
            StagingFull: the sink has no room.
        """
        rest = memoryview(piece)
        while rest:
            if self._failure is not None:
                raise self._failure
            if self._filling is None:
                await self._borrow(waiting_bytes=len(rest))
                continue
            count = min(len(rest), len(self._filling) - self._filled)
            self._filling[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]
            is_full = self._filled == len(self._filling)
            if is_full or (self._filled >= self._block_bytes_min and not self._in_flight):
                self._hand_over()
                self._is_streaming = True
        if self._filling is not None:
            self._buffers.fills(self, self._tenant_id)

    def last(self) -> memoryview:
        """Return the bytes that the sink has not got yet; valid until the buffer is given back."""
        self._buffers.fills_no_more(self, self._tenant_id)
        return self._filling[: self._filled] if self._filling is not None else memoryview(b"")

    async def complete(self) -> bytes:
        """Let the sink process the last bytes, and return the sha256 of the body.

        Raises:
            DomainError: as `Sink.complete`.
        """
        return await self._sink.complete(self.last(), processed=self._give_back)

    def give_way(self) -> None:
        self._is_streaming = False
        if self._filled:
            self._hand_over()
        else:
            self._give_back()

    async def aclose(self) -> None:
        """Give the buffer back, and wait for the blocks in flight, which give back theirs."""
        self._give_back()
        await until_done(self._in_flight)

    async def _borrow(self, *, waiting_bytes: int) -> None:
        while len(self._in_flight) >= BLOCKS_MAX:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        if self._failure is not None:
            raise self._failure
        self._filling = await self._buffers.borrow(self._tenant_id, waiting_bytes=waiting_bytes)
        self._buffers.fills(self, self._tenant_id)

    def _hand_over(self) -> None:
        block, buffer = self.last(), self._taken()
        processed = self._sink.append(block)
        self._in_flight.append(processed)

        def give_back(processed: asyncio.Future[None]) -> None:
            self._in_flight.remove(processed)
            # Retrieved in any case: asyncio would log an exception that nobody retrieves.
            failure = processed.exception()
            self._failure = self._failure or failure
            self._buffers.give_back(buffer, self._tenant_id)

        processed.add_done_callback(give_back)

    def _give_back(self) -> None:
        if self._filling is not None:
            self._buffers.fills_no_more(self, self._tenant_id)
            self._buffers.give_back(self._taken(), self._tenant_id)

    def _taken(self) -> memoryview:
        """Return the buffer, which is filled no more."""
        if self._filling is None:
            raise RuntimeError("the body has no buffer")
        buffer, self._filling, self._filled = self._filling, None, 0
        return buffer
