"""The server's side of a connection, where clients do what they should not."""

import asyncio
from collections import deque
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES_MAX: Final = 64 * 1024


class HardenedProtocol(HttpToolsProtocol):
    """Refuses a request whose head does not end, or whose body is followed by endless trailers.

    The parser alone would keep all of it in memory. Trailers are read over: the
    server would add them to the head, past whatever stands before it. And a client
    that hangs up is noticed by every request it has not been answered.
    """

    _is_in_head = False
    _is_in_message = False
    _got_further = False
    _unfinished_bytes = 0
    """Came since the last end of a head, piece of a body or end of a message."""
    _unanswered: deque[RequestResponseCycle]
    """Several where a client sends its next request before it has the answer to the last."""

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
        self._got_further = True
        super().on_headers_complete()
        # They are answered in order. Thousands may come at once, so none is looked at twice.
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._got_further = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_message = False
        self._got_further = True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # The server tells the newest request alone. One sent before it would wait on for
        # nobody, and then fail by writing to what is closed.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._got_further = False
        super().data_received(data)
        is_stuck = self._is_in_message and not self._got_further
        self._unfinished_bytes = self._unfinished_bytes + len(data) if is_stuck else 0
        if self._unfinished_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            if self._is_in_head:
                self.transport.write(
                    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                    b"connection: close\r\ncontent-length: 0\r\n\r\n"
                )
            self.transport.close()
