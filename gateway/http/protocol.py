"""The server's side of a connection, hardened against misbehaving clients."""

import asyncio
import re
import socket
import struct
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.http.exchange import Exchange, refusal
from schemas.settings import HttpSettings

HEAD_BYTES_MAX: Final = 16 * 1024
"""The default of Node. As many connections as may be idle can hold so much without a key."""

HEAD_FIELDS_MAX: Final = 100
"""A short field takes twenty times its bytes in memory; Apache: `LimitRequestFields`."""

PIPELINED_MAX: Final = 16
"""Requests of a connection that wait for their answers. An open request takes a hundred times the
bytes of the shortest head. After so many answers the connection is closed, and the client sends the
other requests again (RFC 9112, section 9.3.2)."""

READ_BYTES_MAX: Final = 256 * 1024
UNASKED_BYTES_MAX: Final = 16 * 1024
"""Read of a request before the application asks for its body."""

KEEP_ALIVE_SECONDS: Final = 75
"""Longer than a proxy keeps an idle connection: otherwise the proxy would send a request on a
connection that the server has closed."""

ANSWER_SILENCE_SECONDS: Final = 60
"""A client that takes no byte of its answer for so long counts as gone; nginx: `send_timeout`."""

ANSWER_BYTES_MIN: Final = 500 * ANSWER_SILENCE_SECONDS
"""Taken of a long answer in this time: a client that takes a byte now and then would hold the rest
of its answers in memory. 500 bytes per second are the default of `BODY_RATE_MIN`."""

SHUTDOWN_SECONDS: Final = 1
"""How long a stopping process still reads what belongs to an answered request."""

VERSIONS: Final = frozenset({"1.0", "1.1"})
OTHER_VERSION: Final = (
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
    "only HTTP/1.1 and HTTP/1.0 are supported",
)

# RFC 3986, section 3.2.2. An empty host is valid.
HOST: Final = re.compile(
    rb"(?:\[[0-9A-Za-z:.]+\]|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::\d*)?"
)

RESET: Final = struct.pack("ii", 1, 0)
"""`SO_LINGER`: close with a reset."""


class Phase(Enum):
    """What a connection waits for."""

    NEW = auto()
    """The first byte of the first request."""
    HEAD = auto()
    """The end of a head."""
    ANSWERING = auto()
    """The application."""
    DISCARDING = auto()
    """The rest of a body whose request is answered; the connection stays open."""
    IDLE = auto()
    """The next request."""
    LINGERING = auto()
    """The client's end of the connection; the server has closed its side."""


# A tuple, because a set would compute the hash of the phase in Python for every request.
DISCARDING_PHASES: Final = (Phase.DISCARDING, Phase.LINGERING)


class IdleConnections:
    """The connections without an open request; above `most` the longest idle one is closed.

    Otherwise a client without a key could open connections until the process has no file
    descriptor left for other clients.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._connections: dict[HardenedProtocol, None] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: "HardenedProtocol") -> None:
        self._connections.setdefault(connection)
        if len(self._connections) > self._most:
            longest = next(iter(self._connections))
            del self._connections[longest]
            longest.close()

    def discard(self, connection: "HardenedProtocol") -> None:
        self._connections.pop(connection, None)


class HardenedProtocol(HttpToolsProtocol):
    """Ends every connection whose client does not proceed, and only after its last answer.

    - A head or trailers that do not end are bounded in bytes, a head also in fields and in time. The
      parser alone would keep them in memory. Trailers are ignored: uvicorn would add them to the
      headers, past every check of the head.
    - Pipelined requests are bounded.
    - The last answer is followed by a lingering close (RFC 9112, section 9.6): the server closes its
      side, then reads and discards, within limits, until the client closes. With unread bytes a
      plain close would be a reset, and the client would lose the answer.
    - The rest of a body whose request was answered early is discarded within the same limits.
    - A client that closes its side is answered if its requests are complete. Otherwise, and when the
      connection is lost, the unanswered requests get a disconnect.
    """

    _phase: Phase | None = None
    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    _is_in_head = False
    _is_in_message = False
    _is_upgrade = False
    _has_progressed = False
    _unfinished_bytes = 0
    """Bytes received since the parser last completed a head, a piece of a body or a message."""

    _is_parsing = True
    _is_lingering = False
    _is_stopping = False
    _has_client_ended = False
    """Whether the client has closed its side of the connection."""

    _discarded_bytes = 0
    _discarding_since = 0.0
    _active_at = 0.0
    _unsent_bytes = 0

    _answering: "_Answering"
    _unanswered: deque[Exchange]
    """Open requests: several with pipelining, when a client does not wait for earlier answers."""

    cycle: Exchange | None  # type: ignore[assignment]  # the newest request; None once it is answered

    def __init__(
        self,
        *args: Any,  # noqa: ANN401  # the server's own
        settings: HttpSettings,
        idle: IdleConnections,
        **kwargs: Any,  # noqa: ANN401  # the server's own
    ) -> None:
        super().__init__(*args, **kwargs)
        self._head_seconds = settings.request_head_timeout.total_seconds()
        self._silence_seconds = settings.linger_silence.total_seconds()
        self._linger_seconds = settings.linger_time.total_seconds()
        self._linger_bytes = settings.linger_bytes
        self._idle = idle
        self._unanswered = deque()

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the server's own
        super().connection_made(transport)
        self.flow = _Flow(self, transport)
        self._answering = _Answering(self, transport)
        self._start_phase()

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.discard(self)
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        # uvicorn notifies only the newest request. An earlier request would keep waiting, and then
        # fail when it writes to the closed connection.
        for exchange in self._unanswered:
            exchange.disconnect()
        self._unanswered.clear()
        self.pipeline.clear()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # the server's own always closes
        """Return whether the connection stays open for the answers of complete requests."""
        self._has_client_ended = True
        self._forget_answered()
        if self._is_lingering or not self._unanswered:
            self._limit_discarding()
            return False
        for exchange in self._unanswered:
            exchange.cut()
        self._unanswered[-1].keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        if self._phase in DISCARDING_PHASES or not self._is_parsing:
            self._count_discarded(len(data))
        if not self._is_parsing or self.transport.is_closing():
            return
        self._has_progressed = False
        try:
            self._parse(data)
        except httptools.HttpParserError:
            if self._is_parsing:
                self._stop_at_error()
        else:
            is_stuck = self._is_in_message and not self._has_progressed
            self._unfinished_bytes = self._unfinished_bytes + len(data) if is_stuck else 0
            if self._unfinished_bytes > HEAD_BYTES_MAX:
                self._stop_endless()
        if self._has_unread_body:
            # Until the application asks for more: unread bytes would cost memory.
            self.flow.pause_reading()
        self._start_phase()

    @property
    def read_bytes_max(self) -> int:
        """The most bytes that the next read may take.

        Few before the application asks for the body: it may not ask for a long time.
        """
        is_in_body = self._is_in_message and not self._is_in_head
        is_awaited = self.cycle is None or self.cycle.is_body_awaited
        return READ_BYTES_MAX if is_awaited and is_in_body else UNASKED_BYTES_MAX

    @property
    def has_most_requests(self) -> bool:
        """Whether as many requests as allowed wait for their answers."""
        return len(self._unanswered) >= PIPELINED_MAX

    @property
    def _has_unread_body(self) -> bool:
        request = self.cycle
        return (
            request is not None
            and bool(request.body)
            and request.more_body
            and not request.response_complete
        )

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(ANSWER_SILENCE_SECONDS, self._check_writing)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def shutdown(self) -> None:
        self._is_stopping = True
        self._forget_answered()
        if self._unanswered:
            self._unanswered[-1].keep_alive = False
        elif self._phase is Phase.LINGERING:
            self._limit_discarding()
        elif self._phase is Phase.DISCARDING:
            self._linger()
        else:
            self.close()

    # The parser

    def _parse(self, data: bytes) -> None:
        """Feed the parser; a request to change the protocol is read as if it asked for nothing.

        The parser would skip the body of such a request. Java's client offers HTTP/2 like this.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_upgrade:  # CONNECT, which is refused
                    self._is_parsing = False
                    return
                (position,) = upgrade.args
                data = self._head_without_upgrade() + data[position:]
                self.parser = httptools.HttpRequestParser(self)
                self._is_upgrade = False
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode("ascii")
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        if self.has_most_requests:
            self._unanswered[-1].keep_alive = False
            self._is_parsing = False
            raise _Stop
        self._begin_message()

    def _begin_message(self) -> None:
        self._is_in_head = self._is_in_message = True
        self._discarded_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            super().on_header(name, value)
            if len(self.headers) > HEAD_FIELDS_MAX:
                raise _Stop

    def on_headers_complete(self) -> None:
        method = self.parser.get_method().decode("ascii")
        if self.parser.should_upgrade() and method != "CONNECT":
            self._is_upgrade = True
            return
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        raw_path = url.path or b"/"
        self.scope["method"] = method
        self.scope["http_version"] = version
        path = raw_path.decode("ascii")
        self.scope["path"] = unquote(path) if "%" in path else path
        self.scope["raw_path"] = raw_path
        self.scope["query_string"] = url.query or b""
        refused = self._refusal_of_head(method, version=version)
        self._is_in_head = False
        self._has_progressed = True
        self._open(
            self.scope,
            app=refusal(*refused) if refused else self.app,
            keep_alive=version == "1.1" and self.parser.should_keep_alive(),
            # RFC 9110, section 10.1.1: HTTP/1.0 has no interim answers.
            expects_continue=version == "1.1" and self.expect_100_continue,
        )

    def on_body(self, body: bytes) -> None:
        self._has_progressed = True
        if self.cycle is None or self.cycle.response_complete:
            return
        self.cycle.body += body
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._is_upgrade:
            return
        self._is_in_message = False
        self._has_progressed = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _refusal_of_head(self, method: str, *, version: str) -> tuple[HTTPStatus, str] | None:
        if method == "CONNECT":
            return HTTPStatus.NOT_IMPLEMENTED, "CONNECT is not supported"
        if version == "0.9":
            return HTTPStatus.BAD_REQUEST, "HTTP/0.9 is not supported"
        if version not in VERSIONS:
            return OTHER_VERSION
        hosts = [value for name, value in self.headers if name == b"host"]
        # RFC 9112, section 3.2. A proxy may have chosen another one of two hosts.
        if len(hosts) > 1 or (version == "1.1" and not hosts):
            return HTTPStatus.BAD_REQUEST, f"there are {len(hosts)} Host fields instead of one"
        if hosts and not HOST.fullmatch(hosts[0]):
            return HTTPStatus.BAD_REQUEST, "the Host field is not valid"
        return None

    def _stop_at_error(self) -> None:
        if self._is_in_head and len(self.headers) > HEAD_FIELDS_MAX:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the head has more than {HEAD_FIELDS_MAX} fields",
            )
        elif not self._is_in_message or self._is_in_head:
            version = self.parser.get_http_version()
            is_other = version not in VERSIONS | {"0.0", "0.9"}
            self._refuse(
                *(OTHER_VERSION if is_other else (HTTPStatus.BAD_REQUEST, "the head is not valid"))
            )
        elif not self._cut_body():
            self._linger()

    def _stop_endless(self) -> None:
        if self._is_in_head:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the head has more than {HEAD_BYTES_MAX} bytes",
            )
        elif not self._cut_body():
            self.close()

    def _cut_body(self) -> bool:
        """Let the application refuse the body as incomplete; return False if it has answered."""
        self._is_parsing = False
        if self.cycle is None or self.cycle.response_complete:
            return False
        self.cycle.cut()
        self.cycle.keep_alive = False
        return True

    # Requests and answers

    def _open(
        self,
        scope: Any,  # noqa: ANN401  # the server's own type is private
        *,
        app: Any,  # noqa: ANN401  # likewise
        keep_alive: bool,
        expects_continue: bool = False,
    ) -> None:
        self._forget_answered()
        exchange = Exchange(
            scope=scope,
            transport=self._answering,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        self.cycle = exchange
        self._unanswered.append(exchange)
        if len(self._unanswered) == 1:
            self._start_asgi_task(exchange, app)
        else:
            # Answers are sent in the order of the requests. Reading goes on below the limit: without
            # it a request that waits for a job would not notice that its client has disconnected.
            self.pipeline.appendleft((exchange, app))
            if self.has_most_requests:
                self.flow.pause_reading()

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer, after all earlier requests, what is not a request; then close the connection."""
        self._is_parsing = False
        self._begin_message()
        scope = {**self.scope, "method": "GET", "path": "", "raw_path": b"", "query_string": b""}
        self._open(scope, app=refusal(status, detail), keep_alive=False)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._is_lingering or self.transport.is_closing():
            return
        self._forget_answered()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        self.flow.resume_reading()
        self._start_phase()

    def _forget_answered(self) -> None:
        # Answers are sent in order, so each request is removed once. A client may pipeline thousands
        # of requests: a scan of all requests for every request would take quadratic time.
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        if not self._unanswered:
            # An idle connection keeps neither a request nor the unread bytes of its body.
            self.cycle = None

    # The end of the connection

    def end(self) -> None:
        """Close the connection after an answer, or at once in the middle of an answer."""
        if self._is_lingering or self.transport.is_closing():
            return
        if self._unanswered and self._unanswered[0].is_cut_short:
            # A client could take what it has for the whole: without a length, or of a proxy.
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET
            )
            self.transport.abort()
        elif self._has_client_ended:
            self.close()
        else:
            self._linger()

    def close(self) -> None:
        """Close the connection once the client has taken what was written."""
        self.transport.close()
        self._limit_discarding()

    def _linger(self) -> None:
        self._is_lingering = True
        self._is_parsing = False
        self.pipeline.clear()
        self._unanswered.clear()
        self.cycle = self.scope = self.headers = None  # type: ignore[assignment]  # unused from here on
        self.transport.write_eof()
        self.flow.resume_reading()
        self._start_phase()

    def _count_discarded(self, count: int) -> None:
        self._active_at = self.loop.time()
        self._discarded_bytes += count
        if self._discarded_bytes > self._linger_bytes:
            self.transport.abort()

    def _limit_discarding(self) -> None:
        self._active_at = self._discarding_since = self.loop.time()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        if self._timer is not None:
            self._timer.cancel()
        self._check_discarding()

    def _check_discarding(self) -> None:
        """Abort the connection if a limit is exceeded; otherwise check again later."""
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        silence, whole = self._silence_seconds, self._linger_seconds
        if self._is_stopping:
            silence = whole = SHUTDOWN_SECONDS
        if unsent:
            # The client still takes its answer.
            silence = whole = ANSWER_SILENCE_SECONDS
            if unsent != self._unsent_bytes:
                self._active_at = self._discarding_since = now
        self._unsent_bytes = unsent
        ends_at = min(self._active_at + silence, self._discarding_since + whole)
        if now >= ends_at:
            self.transport.abort()
        else:
            self._set_timer(ends_at - now, self._check_discarding)

    def _check_writing(self) -> None:
        """Abort the connection if the client has taken too little; otherwise check again later."""
        unsent = self.transport.get_write_buffer_size()
        if unsent > self._unsent_bytes - ANSWER_BYTES_MIN:
            self.transport.abort()
            return
        self._unsent_bytes = unsent
        self._write_timer = self.loop.call_later(ANSWER_SILENCE_SECONDS, self._check_writing)

    # The phases

    def _start_phase(self) -> None:
        """Set the timer of the phase that begins now; the timer of a phase that goes on stays."""
        phase = self._current_phase()
        if phase is self._phase or self.transport.is_closing():
            return
        self._phase = phase
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if phase is Phase.ANSWERING:
            self._idle.discard(self)
        else:
            self._idle.add(self)
        match phase:
            case Phase.NEW:
                self._set_timer(self._head_seconds, self.close)
            case Phase.HEAD:
                self._set_timer(self._head_seconds, self._stop_slow_head)
            case Phase.IDLE:
                self._set_timer(KEEP_ALIVE_SECONDS, self.close)
            case Phase.DISCARDING | Phase.LINGERING:
                self._limit_discarding()

    def _current_phase(self) -> Phase:
        self._forget_answered()
        if self._is_lingering:
            return Phase.LINGERING
        if self._unanswered:
            return Phase.ANSWERING
        if self._is_in_head:
            return Phase.HEAD
        if self._is_in_message:
            return Phase.DISCARDING
        return Phase.NEW if self._phase is None or self._phase is Phase.NEW else Phase.IDLE

    def _stop_slow_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the head was not complete after {self._head_seconds:g} seconds",
        )
        self._start_phase()

    def _set_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timer = self.loop.call_later(seconds, callback)


class _Stop(Exception):
    """Stops the parser within the bytes that it has got."""


class _Flow(FlowControl):
    """Reads nothing while as many requests as allowed wait for their answers."""

    def __init__(self, protocol: HardenedProtocol, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if not self._protocol.has_most_requests:
            super().resume_reading()


class _Answering(asyncio.Transport):
    """The transport of an exchange, which closes only after the client got its answer."""

    def __init__(self, protocol: HardenedProtocol, transport: asyncio.Transport) -> None:
        super().__init__()
        self._protocol = protocol
        self.write = transport.write  # type: ignore[method-assign]  # as fast as without this class
        self.is_closing = transport.is_closing  # type: ignore[method-assign]

    def close(self) -> None:
        self._protocol.end()
