"""The requests that receive a chunk, and how a slow one gives way to a newer request.

A client whose connection died without a FIN sends its chunk again, while the first request still
waits for bytes and holds the chunk's lock. The newer request asks the holder to give way. A holder
that receives fewer than `keep_rate` bytes a second ends; a healthy holder keeps the chunk,
because two living senders would otherwise end each other for ever.

A holder in another gateway is asked through the database. The question is a hint: only the lock
of the staging backend, and the row of the chunk, decide whose bytes count.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import uuid4

from schemas.ids import UploadId

CHANNEL: Final = "waybill_chunks"

RATE_WINDOW: Final = timedelta(seconds=2)
"""Time over which a holder's rate is measured; a younger holder is never slow."""

ASK_INTERVAL: Final = timedelta(seconds=1)
"""How often a waiting request repeats its question."""

ASKED_FOR: Final = 1.5 * ASK_INTERVAL
"""How long a question counts; then the request that asked is gone."""

SAMPLE_SECONDS: Final = 0.1
"""Bytes that arrive within this time are one sample."""


class GaveWay(Exception):
    """The request received its chunk slowly, and a newer request waits for the chunk."""


class ChunkHolder:
    """A request that receives the body of a chunk.

    Its rate counts only the time in which it waits for the client: a client is not slow because the
    server's disk is. Only while it waits for the client it gives way: bytes that are written, or a
    chunk that is being recorded, soon end by themselves.
    """

    def __init__(self, *, keep_rate: int) -> None:
        self._enough = keep_rate * RATE_WINDOW.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._wait: asyncio.Timeout | None = None
        """The current wait for the client."""
        self._waits_since = 0.0
        self._waited = 0.0
        """Seconds waited for the client before the current wait."""
        self._samples = deque[tuple[float, int]]()
        """Seconds waited for the client until some bytes arrived, and their number."""
        self._asked_until = 0.0

    async def pieces(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the pieces of the body.

        Raises:
            GaveWay: the body arrives slowly, and a newer request waits for the chunk.
        """
        while True:
            self._waits_since = self._loop.time()
            try:
                async with asyncio.timeout_at(self._ends_at()) as self._wait:
                    pieces = [await anext(body)]
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise GaveWay from error
            finally:
                self._wait = None
            self._count(len(pieces[0]))
            # Popped, so that no piece stays in memory while the next one is awaited.
            yield pieces.pop()

    def ask(self) -> None:
        """Give way to a newer request as soon as the body arrives slowly."""
        self._asked_until = self._loop.time() + ASKED_FOR.total_seconds()
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(self._ends_at())

    def _count(self, received: int) -> None:
        self._waited += self._loop.time() - self._waits_since
        if self._samples and self._waited - self._samples[-1][0] < SAMPLE_SECONDS:
            waited, earlier = self._samples.pop()
            self._samples.append((waited, earlier + received))
        else:
            self._samples.append((self._waited, received))
        while self._waited - self._samples[0][0] > RATE_WINDOW.total_seconds():
            self._samples.popleft()

    def _ends_at(self) -> float | None:
        """Return the time at which the current wait ends if no byte arrives; None if it does not."""
        slow_at = self._waits_since + max(0, self._slow_after() - self._waited)
        return slow_at if slow_at <= self._asked_until else None

    def _slow_after(self) -> float:
        """Return the seconds of waiting after which too few bytes are within the window."""
        received = 0
        for waited, count in reversed(self._samples):
            received += count
            if received >= self._enough:
                return waited + RATE_WINDOW.total_seconds()
        return RATE_WINDOW.total_seconds()


class ChunkHolders:
    """The holders of this process, and the questions to those of other processes.

    Args:
        keep_rate: bytes per second with which a holder keeps its chunk.
        send: sends a payload to all processes that listen to `CHANNEL`.
    """

    def __init__(self, *, keep_rate: int, send: Callable[[str], Awaitable[None]]) -> None:
        self._keep_rate = keep_rate
        self._send = send
        self._process = uuid4().hex
        self._holders = defaultdict[str, set[ChunkHolder]](set)

    @contextmanager
    def holding(self, upload_id: UploadId, index: int) -> Iterator[ChunkHolder]:
        """Register the request as a holder of the chunk until the block ends."""
        chunk = _name_of(upload_id, index)
        holder = ChunkHolder(keep_rate=self._keep_rate)
        self._holders[chunk].add(holder)
        try:
            yield holder
        finally:
            self._holders[chunk].discard(holder)
            if not self._holders[chunk]:
                del self._holders[chunk]

    def ask(self, upload_id: UploadId, index: int) -> bool:
        """Ask the holders of the chunk in this process to give way; False if there is none."""
        return self._ask(_name_of(upload_id, index))

    async def ask_everywhere(self, upload_id: UploadId, index: int) -> None:
        """Ask the holder of a locked chunk to give way, wherever it is.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot be reached.
        """
        chunk = _name_of(upload_id, index)
        if not self._ask(chunk):
            await self._send(f"{self._process} {chunk}")

    def _ask(self, chunk: str) -> bool:
        holders = self._holders.get(chunk, ())
        for holder in holders:
            holder.ask()
        return bool(holders)

    def notify(self, question: str | None) -> None:
        """Pass a question of another process on to the holders.

        None, after a reconnect, needs no action: requests that wait repeat their questions.
        """
        process, _, chunk = (question or "").partition(" ")
        if process != self._process:
            self._ask(chunk)


def _name_of(upload_id: UploadId, index: int) -> str:
    return f"{upload_id}/{index}"
