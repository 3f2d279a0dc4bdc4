"""The server's side of a connection, hardened against misbehaving clients."""

import asyncio
from collections import deque
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES_MAX: Final = 64 * 1024


class HardenedProtocol(HttpToolsProtocol):
    """Closes a connection whose request head or trailers do not end.

    The parser alone would keep all of these bytes in memory. Trailers are ignored: uvicorn
    would add them to the headers, past every check of the head. When the client disconnects,
    every unanswered request of the connection is notified.
    """

    _is_in_head = False
    _is_in_message = False
    _has_progressed = False
    _unfinished_bytes = 0
    """Bytes received since the parser last completed a head, a piece of a body or a message."""
    _unanswered: deque[RequestResponseCycle]
    """Open requests: several with pipelining, when a client does not wait for earlier answers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the server's own
        super().connection_made(transport)
        self._unanswered = deque()

    def on_message_begin(self) -> None:
        self._is_in_head = self._is_in_message = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._has_progressed = True
        super().on_headers_complete()
        # Answers are sent in order, so each cycle is removed once. A client may pipeline thousands
        # of requests: a scan of all cycles for every request would take quadratic time.
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._has_progressed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_message = False
        self._has_progressed = True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn notifies only the newest request. An earlier request would keep waiting, and then
        # fail when it writes to the closed connection.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._has_progressed = False
        super().data_received(data)
        is_stuck = self._is_in_message and not self._has_progressed
        self._unfinished_bytes = self._unfinished_bytes + len(data) if is_stuck else 0
        if self._unfinished_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            if self._is_in_head:
                self.transport.write(
                    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                    b"connection: close\r\ncontent-length: 0\r\n\r\n"
                )
            self.transport.close()
