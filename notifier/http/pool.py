"""Idle connections, kept for the next request of their origin."""

import asyncio
from collections import OrderedDict
from typing import Final

from notifier.http.answer import Answer
from notifier.http.connection import Connection, Origin

IDLE_TIME: Final = 30.0
"""Seconds an idle connection is kept; networks silently drop connections that are idle longer."""

AGE_MAX: Final = 300.0
"""Seconds from opening after which a connection is not used again: otherwise a busy connection
would stay with an address that the name does not have any more."""

DRAIN_TIME: Final = 1.0
"""Seconds for the rest of a body that nobody waits for."""

DRAINING_MAX: Final = 100
"""Connections whose bodies are drained; others are closed. Bounds open files."""


class Pool:
    """Takes and gives back in constant time. The most recently used connection is taken first."""

    def __init__(self, *, idle_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_max = idle_max
        # Longest idle first, with the loop's time since when.
        self._idle: OrderedDict[Connection, float] = OrderedDict()
        self._of: dict[Origin, dict[Connection, None]] = {}
        # All that are open, so that none survives the pool.
        self._open: set[Connection] = set()
        self._draining: set[Connection] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._is_closed = False

    def add(self, connection: Connection) -> None:
        """Own a connection until it closes.

        Raises:
            ConnectionAbortedError: the pool is closed.
        """
        if self._is_closed:
            connection.abort()
            raise ConnectionAbortedError
        self._open.add(connection)

    def take(self, origin: Origin) -> Connection | None:
        """Return an idle connection that is still usable, as far as this side can tell."""
        now = self._loop.time()
        while of_origin := self._of.get(origin):
            connection = next(reversed(of_origin))
            since = self._idle[connection]
            self._forget(connection)
            if connection.is_open and since + IDLE_TIME > now and connection.reuse_until > now:
                return connection
            connection.abort()
        return None

    def release(self, connection: Connection, answer: Answer, *, drain: bool) -> None:
        """Take a connection back after its answer.

        Args:
            connection: from `take`, or added.
            answer: of its request.
            drain: whether the rest of the body is read first; otherwise a connection whose answer
                is incomplete is closed.
        """
        if (
            drain
            and not answer.complete
            and connection.is_open
            and len(self._draining) < DRAINING_MAX
        ):
            self._draining.add(connection)
            connection.drain(answer, within=DRAIN_TIME)
        else:
            connection.release(answer)

    def close(self) -> None:
        """Close all connections, those in use too."""
        self._is_closed = True
        for connection in list(self._open):
            connection.abort()
        if self._expiry is not None:
            self._expiry.cancel()

    # What a connection calls.

    def became_idle(self, connection: Connection) -> None:
        self._draining.discard(connection)
        now = self._loop.time()
        if self._is_closed or now - connection.opened_at > AGE_MAX:
            connection.abort()
            return
        self._idle[connection] = now
        self._of.setdefault(connection.origin, {})[connection] = None
        if len(self._idle) > self._idle_max:
            next(iter(self._idle)).abort()
        if self._expiry is None:
            self._expiry = self._loop.call_later(IDLE_TIME, self._expire)

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._draining.discard(connection)
        if connection in self._idle:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        del self._idle[connection]
        of_origin = self._of[connection.origin]
        del of_origin[connection]
        if not of_origin:
            del self._of[connection.origin]

    def _expire(self) -> None:
        self._expiry = None
        now = self._loop.time()
        while self._idle:
            connection, since = next(iter(self._idle.items()))
            if since + IDLE_TIME > now:
                self._expiry = self._loop.call_at(since + IDLE_TIME, self._expire)
                break
            connection.abort()
