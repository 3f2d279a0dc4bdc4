"""One connection to a receiver: one request at a time, its reads bounded and paced."""

import asyncio
import math
import ssl
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from notifier.http.answer import Answer
from notifier.http.errors import AnswerRefused, ConnectionBroken
from notifier.http.work import FREE, READ, Work

READ_MAX: Final = 8 * 1024
"""Bytes of one read. The bytes that are the most expensive to parse, tiny header fields, hold the
event loop for a millisecond."""


class Origin(NamedTuple):
    """What a connection is opened for; connections of different origins are never shared."""

    scheme: str
    host: str
    port: int


class _State(Enum):
    IDLE = auto()
    ANSWERING = auto()
    DRAINING = auto()
    CLOSED = auto()


class ReadBuffer:
    """One buffer for the reads of all connections of an event loop; a read is used up at once."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_MAX))


class Owner(Protocol):
    """Is told what becomes of a connection."""

    def became_idle(self, connection: "Connection") -> None: ...

    def closed(self, connection: "Connection") -> None: ...


class Connection(asyncio.BufferedProtocol):
    """The protocol of one connection.

    Attributes:
        origin: what it was opened for.
        address: the checked address of the receiver.
        opened_at: the loop's time.
        reuse_until: the loop's time after which the idle connection is not used again.
        first_byte: seconds from the sent request to the first byte of its answer.
    """

    def __init__(
        self,
        *,
        origin: Origin,
        address: str,
        owner: Owner,
        work: Work,
        buffer: ReadBuffer,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.origin = origin
        self.address = address
        self.opened_at = self._loop.time()
        self.reuse_until = 0.0
        self.first_byte: float | None = None
        self._owner = owner
        self._work = work
        self._buffer = buffer.view
        self._state = _State.IDLE
        self._transport: asyncio.Transport | None = None
        # The transport whose reads are counted and paused: under TLS, the one beneath.
        self._wire: asyncio.Transport | None = None
        self._is_counted_beneath = False
        self._answer: Answer | None = None
        self._failure: AnswerRefused | ConnectionBroken | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._spent = 0.0
        self._sent_at = 0.0
        self._pause: asyncio.TimerHandle | None = None
        self._drain_end: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        return (
            self._state is not _State.CLOSED
            and self._transport is not None
            and not self._transport.is_closing()
        )

    # What the client calls.

    async def request(self, data: bytes, *, body_max: int, is_tunnel: bool = False) -> Answer:
        """Send a request; return its answer as soon as the head is complete.

        Raises:
            AnswerRefused: the answer is not HTTP/1.1, or exceeds a bound.
            ConnectionBroken: the connection ended before the head of the answer.
        """
        transport = self._transport
        if transport is None or self._state is not _State.IDLE:
            raise ConnectionBroken(heard=False)
        self._answer = answer = Answer(body_max=body_max, is_tunnel=is_tunnel)
        self._state = _State.ANSWERING
        self._spent = 0.0
        self.first_byte = None
        self._sent_at = self._loop.time()
        transport.write(data)
        await self._wait()
        if not answer.head_complete:
            raise self._failure or ConnectionBroken(heard=answer.heard)
        if is_tunnel and answer.reusable:
            self._become_idle()
        return answer

    async def rest(self, answer: Answer, *, within: float) -> None:
        """Wait for the end of the body, at most `within` seconds; a break is the answer's `error`."""
        if answer.complete or answer is not self._answer:
            return
        timer = self._loop.call_later(within, self._wake)
        try:
            await self._wait()
        finally:
            timer.cancel()

    def release(self, answer: Answer) -> None:
        """End the exchange: become idle after a complete answer, or close."""
        if answer is self._answer and self._state is not _State.CLOSED:
            if answer.complete:
                self._settle(answer)
            else:
                self.abort()

    def drain(self, answer: Answer, *, within: float) -> None:
        """End the exchange; read the rest of the body first, at most `within` seconds."""
        if answer.complete or self._state is not _State.ANSWERING:
            self.release(answer)
        else:
            self._state = _State.DRAINING
            self._drain_end = self._loop.call_later(within, self.abort)

    def abort(self) -> None:
        """Close at once; unsent bytes are lost."""
        if self._state is not _State.CLOSED:
            if self._transport is not None:
                self._transport.abort()
            self._close()

    async def start_tls(self, context: ssl.SSLContext, *, server_name: str) -> None:
        """Encrypt the connection.

        Reads are counted beneath TLS from then on, because OpenSSL works on records, such as
        session tickets, that never become bytes of an answer.

        Raises:
            OSError: the handshake failed, also `ssl.SSLError`.
        """
        wire = self._wire
        if wire is None or self._state is not _State.IDLE:
            raise ConnectionResetError
        transport = await self._loop.start_tls(wire, self, context, server_hostname=server_name)
        if transport is None or not self.is_open:
            raise ConnectionResetError
        self._transport = transport
        self._is_counted_beneath = True
        wire.set_protocol(_CountedReads(wire.get_protocol(), count=self.count))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"{type(transport).__name__} is not the transport of a stream")
        self._transport = self._wire = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the protocol's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_counted_beneath:
            self._read(nbytes)
        else:
            began = time.thread_time()
            self._read(nbytes)
            self.count(time.thread_time() - began)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._state is not _State.CLOSED:
            if self._answer is not None:
                self._answer.end(is_clean=exc is None)
            self._close()

    def count(self, cost: float) -> None:
        """Count the CPU time of a read; pause, or refuse an answer that costs too much."""
        cost += READ
        self._spent += cost
        if self._spent <= FREE or self._state is _State.CLOSED:
            return
        now = self._loop.time()
        if not self._work.is_allowed(self.address, spent=self._spent, cost=cost, now=now):
            self._exceed("the answer takes too much work to read")
        elif self._wire is not None and self._pause is None:
            self._wire.pause_reading()
            self._pause = self._loop.call_later(self._work.pause(cost, now=now), self._resume)

    # Inside.

    def _read(self, length: int) -> None:
        answer = self._answer
        if answer is None or answer.complete:
            # Nobody asked for these bytes; the next request would take them for its answer.
            self.abort()
            return
        if self.first_byte is None:
            self.first_byte = self._loop.time() - self._sent_at
        had_head = answer.head_complete
        try:
            answer.feed(bytes(self._buffer[:length]))
        except AnswerRefused as refused:
            self._failure = refused
            self.abort()
        else:
            self._tell(answer, had_head=had_head)

    def _tell(self, answer: Answer, *, had_head: bool) -> None:
        if answer.complete and self._state is _State.DRAINING:
            self._settle(answer)
        elif answer.complete or (answer.head_complete and not had_head):
            self._wake()

    def _exceed(self, reason: str) -> None:
        answer = self._answer
        if answer is not None and not answer.complete:
            try:
                answer.exceed(reason)
            except AnswerRefused as refused:
                self._failure = refused
        self.abort()

    def _settle(self, answer: Answer) -> None:
        transport = self._transport
        if (
            answer.reusable
            and self.is_open
            and transport is not None
            # Otherwise the answer came before the whole request was sent.
            and transport.get_write_buffer_size() == 0
        ):
            if answer.keep_alive_timeout is not None:
                # A second less, so that a request does not cross the receiver's close.
                self.reuse_until = self._loop.time() + answer.keep_alive_timeout - 1
            else:
                self.reuse_until = math.inf
            self._become_idle()
            self._owner.became_idle(self)
        else:
            self.abort()

    def _become_idle(self) -> None:
        self._state = _State.IDLE
        self._answer = None
        if self._drain_end is not None:
            self._drain_end.cancel()
            self._drain_end = None
        if self._pause is not None:
            # A connection that does not read would not notice its end.
            self._pause.cancel()
            self._resume()

    def _close(self) -> None:
        self._state = _State.CLOSED
        for timer in (self._pause, self._drain_end):
            if timer is not None:
                timer.cancel()
        self._pause = self._drain_end = None
        self._wake()
        self._owner.closed(self)

    def _resume(self) -> None:
        self._pause = None
        if self._wire is not None and self._state is not _State.CLOSED:
            self._wire.resume_reading()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _CountedReads(asyncio.BufferedProtocol):
    """asyncio's protocol of TLS, whose reads are bounded and counted."""

    def __init__(self, tls: asyncio.BaseProtocol, *, count: Callable[[float], None]) -> None:
        if not isinstance(tls, asyncio.BufferedProtocol):
            raise TypeError(f"{type(tls).__name__} does not read into a buffer")
        self._tls = tls
        self._count = count

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._tls.get_buffer(sizehint))[:READ_MAX]

    def buffer_updated(self, nbytes: int) -> None:
        began = time.thread_time()
        self._tls.buffer_updated(nbytes)
        self._count(time.thread_time() - began)

    def eof_received(self) -> bool | None:
        return self._tls.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tls.connection_lost(exc)

    def pause_writing(self) -> None:
        self._tls.pause_writing()

    def resume_writing(self) -> None:
        self._tls.resume_writing()
