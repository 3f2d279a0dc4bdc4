import asyncio
import heapq
import itertools
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.http.protocol import (
    ANSWER_BYTES_MIN,
    ANSWER_SILENCE_SECONDS,
    HEAD_BYTES_MAX,
    HEAD_FIELDS_MAX,
    KEEP_ALIVE_SECONDS,
    PIPELINED_MAX,
    READ_BYTES_MAX,
    SHUTDOWN_SECONDS,
    UNASKED_BYTES_MAX,
    HardenedProtocol,
    IdleConnections,
)
from gateway.http.reading import BoundedReads
from schemas.settings import HttpSettings

pytestmark = pytest.mark.anyio

SETTINGS = HttpSettings.model_validate({"linger_bytes": 1000, "idle_connections_max": 2})
HEAD_SECONDS = SETTINGS.request_head_timeout.total_seconds()
SILENCE_SECONDS = SETTINGS.linger_silence.total_seconds()
LINGER_SECONDS = SETTINGS.linger_time.total_seconds()

GET = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 2000\r\n"


class Clock:
    """An event loop whose time passes only in `advance`."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> "Timer":
        timer = Timer(callback)
        heapq.heappush(self._timers, (self._now + delay, next(self._numbers), timer))
        return timer

    def create_task(self, coroutine: Any) -> asyncio.Task[Any]:  # noqa: ANN401  # of the server
        return asyncio.get_running_loop().create_task(coroutine)

    def advance(self, seconds: float) -> None:
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            self._now, _, timer = heapq.heappop(self._timers)
            timer.fire()
        self._now = end


class Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback()


class Transport(asyncio.Transport):
    """Keeps what the protocol sends; the client takes it at once, unless `unsent` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: HardenedProtocol
        self.sent = b""
        self.unsent = 0
        self.has_ended = False
        self.is_reset = False
        self.is_paused = False
        self.is_closed = False
        self._is_closing = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self if name == "socket" else default

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 8000)

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 50000)

    family = socket.AF_INET

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER)
        self.is_reset = value != bytes(8)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.has_ended
        self.sent += data

    def write_eof(self) -> None:
        self.has_ended = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True
        if not self.unsent:
            self.abort()

    def abort(self) -> None:
        self._is_closing = True
        if not self.is_closed:
            self.is_closed = True
            self.protocol.connection_lost(None)


@dataclass
class Application:
    """Answers as a test says; keeps what it received."""

    answer: Callable[..., Any]
    calls: list[Any] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        self.calls.append(scope)
        await self.answer(scope, receive, send)


async def start(send: Any, *, fields: Any = (), status: int = 200) -> None:  # noqa: ANN401  # ASGI
    await send({"type": "http.response.start", "status": status, "headers": list(fields)})


async def body(send: Any, content: bytes, *, more_body: bool = False) -> None:  # noqa: ANN401  # ASGI
    await send({"type": "http.response.body", "body": content, "more_body": more_body})


async def answer_early(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # ASGI
    """Answer without reading the body, as a refusal does."""
    await start(send, fields=[(b"content-length", b"5")], status=404)
    await body(send, b"early")


async def answer_whole(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # ASGI
    """Answer with the length of the body, or refuse a body that ends early."""
    length = 0
    while (message := await receive())["type"] == "http.request":
        length += len(message["body"])
        if not message["more_body"]:
            break
    text = b"%d" % length if message["type"] == "http.request" else b"cut"
    await start(send, fields=[(b"content-length", b"%d" % len(text))])
    await body(send, text)


async def wait_for_disconnect(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # ASGI
    while (await receive())["type"] != "http.disconnect":
        pass
    await start(send, fields=[(b"content-length", b"6")])
    await body(send, b"waited")


async def stream(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # ASGI
    await start(send)
    await body(send, b"one ", more_body=True)
    await body(send, b"two")


class Connection:
    """A protocol with a transport that opens no socket."""

    def __init__(
        self,
        answer: Callable[..., Any],
        *,
        clock: Clock | None = None,
        idle: IdleConnections | None = None,
        state: ServerState | None = None,
    ) -> None:
        self.application = Application(answer)
        self.clock = clock or Clock()
        config = uvicorn.Config(self.application, log_config=None, lifespan="off", ws="none")
        config.load()
        config.loaded_app = self.application
        self.transport = Transport()
        self.state = state or ServerState()
        self.protocol = HardenedProtocol(
            config=config,
            server_state=self.state,
            app_state={},
            _loop=cast("asyncio.AbstractEventLoop", self.clock),
            settings=SETTINGS,
            idle=IdleConnections(SETTINGS.idle_connections_max) if idle is None else idle,
        )
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    async def send(self, data: bytes) -> None:
        self.protocol.data_received(data)
        await self.settle()

    async def end(self) -> None:
        """Close the client's side, as the event loop reports it."""
        if not self.protocol.eof_received():
            self.transport.close()
        await self.settle()

    async def settle(self) -> None:
        """Let the application go on until it waits for the connection."""
        for _ in range(10):
            await asyncio.sleep(0)

    @property
    def sent(self) -> bytes:
        return self.transport.sent

    def is_open(self) -> bool:
        return not self.transport.is_closed

    def is_lingering(self) -> bool:
        return self.is_open() and self.transport.has_ended


@pytest.fixture
async def lingering() -> Connection:
    """A connection whose request was answered early, and is to be closed."""
    connection = Connection(answer_early)
    await connection.send(PUT + b"Connection: close\r\n\r\n" + bytes(100))
    assert connection.is_lingering()
    return connection


@pytest.fixture
async def discarding() -> Connection:
    """A connection whose request was answered early, and stays open."""
    connection = Connection(answer_early)
    await connection.send(PUT + b"\r\n" + bytes(100))
    assert connection.sent.endswith(b"early")
    assert not connection.transport.has_ended
    return connection


@pytest.fixture(params=["lingering", "discarding"])
async def answered(
    request: pytest.FixtureRequest, lingering: Connection, discarding: Connection
) -> Connection:
    """A connection with the unread rest of an answered request."""
    return lingering if request.param == "lingering" else discarding


# Lingering close


async def test_the_last_answer_is_sent_whole_before_the_server_closes_its_side(
    lingering: Connection,
) -> None:
    assert lingering.sent.endswith(b"early")
    assert b"connection: close" in lingering.sent


async def test_a_lingering_connection_ends_with_the_client(lingering: Connection) -> None:
    await lingering.send(bytes(500))
    assert lingering.is_open()

    await lingering.end()
    assert not lingering.is_open()


async def test_a_lingering_connection_keeps_no_request(lingering: Connection) -> None:
    await lingering.send(bytes(500))

    protocol = lingering.protocol
    assert not any([protocol.cycle, protocol.scope, protocol.headers, protocol._unanswered])  # noqa: SLF001  # what a refused client may hold


async def test_a_lingering_connection_answers_no_further_request() -> None:
    connection = Connection(answer_early)
    await connection.send(b"GET / HTTP/1.0\r\n\r\n" + GET)
    await connection.send(GET)

    assert len(connection.application.calls) == 1
    assert connection.sent.count(b"HTTP/1.1 404") == 1


async def test_discarding_ends_after_silence(answered: Connection) -> None:
    answered.clock.advance(SILENCE_SECONDS - 0.1)
    await answered.send(bytes(10))
    answered.clock.advance(SILENCE_SECONDS - 0.1)
    assert answered.is_open()

    answered.clock.advance(0.2)
    assert not answered.is_open()


async def test_discarding_ends_after_the_whole_time(answered: Connection) -> None:
    for _ in range(int(LINGER_SECONDS)):
        assert answered.is_open()
        await answered.send(b"x")
        answered.clock.advance(1)

    assert not answered.is_open()


async def test_discarding_ends_after_a_number_of_bytes(answered: Connection) -> None:
    await answered.send(bytes(SETTINGS.linger_bytes))
    assert answered.is_open()

    await answered.send(b"x")
    assert not answered.is_open()


async def test_a_client_that_takes_a_long_answer_is_not_cut_off(lingering: Connection) -> None:
    for unsent in range(100, 0, -1):
        lingering.transport.unsent = unsent
        lingering.clock.advance(LINGER_SECONDS)
        assert lingering.is_open()

    lingering.clock.advance(2 * ANSWER_SILENCE_SECONDS)
    assert not lingering.is_open()


async def test_a_client_that_sends_and_takes_nothing_is_cut_off(lingering: Connection) -> None:
    lingering.transport.unsent = 100
    for _ in range(ANSWER_SILENCE_SECONDS):
        lingering.clock.advance(1)
        await lingering.send(b"x")

    lingering.clock.advance(LINGER_SECONDS)
    assert not lingering.is_open()


async def test_a_connection_is_usable_after_the_rest_of_a_body() -> None:
    connection = Connection(answer_early)
    await connection.send(PUT + b"\r\n" + bytes(1500))
    await connection.send(bytes(500) + GET)

    assert connection.sent.count(b"HTTP/1.1 404") == 2
    connection.clock.advance(KEEP_ALIVE_SECONDS - 1)
    assert connection.is_open()


async def test_the_unread_part_of_a_body_is_not_kept(discarding: Connection) -> None:
    assert discarding.protocol.cycle is None


async def test_a_stopping_server_lingers_for_a_moment(answered: Connection) -> None:
    answered.protocol.shutdown()
    assert answered.is_lingering()

    answered.clock.advance(SHUTDOWN_SECONDS)
    assert not answered.is_open()
    assert not answered.state.connections


async def test_a_client_that_waits_for_100_continue_gets_a_refusal_that_closes() -> None:
    connection = Connection(answer_early)
    await connection.send(PUT + b"Expect: 100-continue\r\n\r\n")

    assert b"100 Continue" not in connection.sent
    assert b"connection: close" in connection.sent
    assert connection.is_lingering()


async def test_an_answer_that_fails_halfway_is_reset() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # ASGI
        await start(send)
        await body(send, b"half", more_body=True)

    connection = Connection(fail)
    await connection.send(b"GET / HTTP/1.0\r\n\r\n")

    assert connection.sent.endswith(b"half")
    assert connection.transport.is_reset
    assert not connection.is_open()


# Framing


async def test_http_1_0_gets_no_chunks() -> None:
    connection = Connection(stream)
    await connection.send(b"GET / HTTP/1.0\r\n\r\n")

    head, _, content = connection.sent.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert content == b"one two"
    assert connection.is_lingering()


async def test_http_1_1_gets_chunks() -> None:
    connection = Connection(stream)
    await connection.send(GET)

    assert connection.sent.endswith(b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")
    assert not connection.transport.has_ended


async def test_a_head_request_is_answered_without_waiting_for_the_body() -> None:
    async def never_end(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # ASGI
        await start(send, fields=[(b"content-type", b"text/event-stream")])
        await body(send, b"first", more_body=True)
        await asyncio.Event().wait()

    connection = Connection(never_end)
    await connection.send(GET.replace(b"GET", b"HEAD") + GET.replace(b"GET", b"HEAD"))

    assert connection.sent.count(b"HTTP/1.1 200") == 2
    assert connection.sent.endswith(b"\r\n\r\n")
    assert b"first" not in connection.sent


async def test_an_application_that_fails_after_its_answer_does_not_end_the_next_answer() -> None:
    may_fail, may_end = asyncio.Event(), asyncio.Event()

    async def answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # ASGI
        await start(send, fields=[(b"content-length", b"5")])
        if scope["method"] == "HEAD":
            await may_fail.wait()
            raise ValueError("failed late")
        await may_end.wait()
        await body(send, b"hello")

    connection = Connection(answer)
    await connection.send(b"HEAD / HTTP/1.1\r\nHost: gateway\r\n\r\n" + GET)
    may_fail.set()
    await connection.settle()
    may_end.set()
    await connection.settle()

    assert connection.sent.endswith(b"hello")
    assert connection.is_open()


async def test_a_head_request_waits_for_nothing() -> None:
    connection = Connection(wait_for_disconnect)
    await connection.send(GET.replace(b"GET", b"HEAD"))

    assert b"content-length: 6" in connection.sent


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b", 400),
        (b"GET / HTTP/1.1\r\nHost: a b", 400),
        (b"GET / HTTP/1.1\r\nHost: user@a", 400),
        (b"GET / HTTP/1.1\r\nHost: a:b", 400),
        (b"GET / HTTP/0.9", 400),
        (b"GET /", 400),
        (b"GET / HTTP/2.0\r\nHost: a", 505),
        (b"GET / HTTP/1.2\r\nHost: a", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM", 505),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a", 400),
        (b"CONNECT /a HTTP/1.1\r\nHost: a", 501),
        (b"nonsense", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: a", 400),
    ],
)
async def test_a_head_that_is_not_valid_is_refused(head: bytes, status: int) -> None:
    connection = Connection(answer_whole)
    await connection.send(head + b"\r\n\r\n")

    line, _, rest = connection.sent.partition(b"\r\n")
    assert int(line.split()[1]) == status
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["status"] == status
    assert connection.application.calls == []
    assert connection.is_lingering()


@pytest.mark.parametrize("host", [b"", b"a", b"a:", b"a.b_c:80", b"[::1]:80", b"%41"])
async def test_a_valid_host_is_accepted(host: bytes) -> None:
    connection = Connection(answer_whole)
    await connection.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")

    assert connection.sent.startswith(b"HTTP/1.1 200")


async def test_a_refused_head_is_answered_after_earlier_requests() -> None:
    connection = Connection(wait_for_disconnect)
    await connection.send(GET + b"nonsense\r\n\r\n")
    assert connection.sent == b""

    await connection.end()
    assert connection.sent.index(b" 200 ") < connection.sent.index(b" 400 ")
    assert not connection.is_open()


async def test_an_offer_of_another_protocol_is_ignored() -> None:
    connection = Connection(answer_whole)
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
    await connection.send(PUT + offer + b"\r\n" + bytes(1500))
    await connection.send(bytes(500) + GET)

    assert connection.sent.count(b"HTTP/1.1 200") == 2
    assert b"\r\n\r\n2000HTTP" in connection.sent


# A client that closes its side


async def test_a_complete_request_is_answered_after_the_client_closed_its_side() -> None:
    connection = Connection(answer_whole)
    connection.protocol.data_received(PUT + b"\r\n" + bytes(2000) + GET)
    await connection.end()

    assert connection.sent.count(b"HTTP/1.1 200") == 2
    assert connection.sent.endswith(b"0")
    assert not connection.is_open()


async def test_a_wait_ends_when_the_client_closes_its_side() -> None:
    connection = Connection(wait_for_disconnect)
    await connection.send(GET)
    assert connection.sent == b""

    await connection.end()
    assert connection.sent.endswith(b"waited")
    assert not connection.is_open()


async def test_a_finite_answer_continues_after_the_client_closed_its_side() -> None:
    taken = asyncio.Event()

    async def answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # ASGI
        await receive()
        await start(send)
        await body(send, b"one ", more_body=True)
        disconnection = asyncio.create_task(receive())
        await taken.wait()
        assert not disconnection.done()
        disconnection.cancel()
        await body(send, b"two")

    connection = Connection(answer)
    await connection.send(GET)
    await connection.end()
    taken.set()
    await connection.settle()

    assert connection.sent.endswith(b"3\r\ntwo\r\n0\r\n\r\n")
    assert not connection.is_open()


async def test_an_event_stream_ends_when_the_client_closes_its_side() -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # ASGI
        await start(send, fields=[(b"content-type", b"text/event-stream")])
        await body(send, b"one ", more_body=True)
        while (await receive())["type"] != "http.disconnect":
            pass

    connection = Connection(answer)
    await connection.send(GET)
    assert connection.is_open()

    await connection.end()
    assert connection.sent.endswith(b"0\r\n\r\n")
    assert not connection.is_open()


async def test_a_body_that_ends_early_is_a_disconnect() -> None:
    connection = Connection(answer_whole)
    await connection.send(PUT + b"\r\n" + bytes(100))
    await connection.end()

    assert connection.sent.endswith(b"cut")
    assert not connection.is_open()


async def test_a_body_with_broken_framing_is_a_disconnect() -> None:
    connection = Connection(answer_whole)
    await connection.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")

    assert connection.sent.endswith(b"cut")
    assert connection.is_lingering()


async def test_a_lost_connection_disconnects_every_request() -> None:
    ended = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        await wait_for_disconnect(scope, receive, send)
        ended.append(scope)

    connection = Connection(answer)
    await connection.send(GET)
    connection.protocol.connection_lost(ConnectionResetError())
    await connection.settle()

    assert len(ended) == 1
    assert connection.sent == b""


# Time


async def test_a_new_connection_without_a_request_is_closed() -> None:
    connection = Connection(answer_whole)
    connection.clock.advance(HEAD_SECONDS - 0.1)
    await connection.send(b"\r\n")
    assert connection.is_open()

    connection.clock.advance(0.1)
    assert not connection.is_open()
    assert connection.sent == b""


async def test_a_slow_head_is_refused() -> None:
    connection = Connection(answer_whole)
    for byte in b"GET / HTTP/1.1\r\nX: ":
        await connection.send(bytes([byte]))
        connection.clock.advance(1.2)
    await connection.settle()

    assert connection.sent.startswith(b"HTTP/1.1 408 ")
    assert connection.is_lingering()


async def test_a_head_behind_a_waiting_request_has_its_time_after_the_answer() -> None:
    connection = Connection(answer_whole)
    may_answer = asyncio.Event()

    async def answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        await may_answer.wait()
        await answer_early(scope, receive, send)

    connection.application.answer = answer
    await connection.send(GET + b"GET / HT")
    connection.clock.advance(10 * HEAD_SECONDS)
    may_answer.set()
    await connection.settle()
    connection.clock.advance(HEAD_SECONDS - 0.1)
    assert connection.sent.count(b"HTTP/1.1") == 1

    connection.clock.advance(0.1)
    await connection.settle()
    assert b"HTTP/1.1 408 " in connection.sent


async def test_an_idle_connection_is_closed() -> None:
    connection = Connection(answer_whole)
    await connection.send(GET)
    connection.clock.advance(KEEP_ALIVE_SECONDS / 2)
    await connection.send(b"\r\n")
    connection.clock.advance(KEEP_ALIVE_SECONDS / 2 - 0.1)
    assert connection.is_open()

    connection.clock.advance(0.1)
    assert not connection.is_open()


async def test_a_client_that_takes_too_little_of_its_answer_is_cut_off() -> None:
    connection = Connection(wait_for_disconnect)
    await connection.send(GET)
    connection.transport.unsent = 100_000
    connection.protocol.pause_writing()
    connection.clock.advance(ANSWER_SILENCE_SECONDS - 1)
    connection.transport.unsent -= ANSWER_BYTES_MIN
    connection.clock.advance(ANSWER_SILENCE_SECONDS)
    connection.transport.unsent -= ANSWER_BYTES_MIN - 1
    assert connection.is_open()

    connection.clock.advance(1)
    assert not connection.is_open()


@pytest.mark.parametrize("has_client_ended", [True, False])
async def test_a_closed_connection_ends_although_the_client_takes_nothing(
    has_client_ended: bool,  # noqa: FBT001  # a parameter of pytest
) -> None:
    connection = Connection(answer_whole)
    connection.transport.unsent = 1000
    await connection.send(GET)
    if has_client_ended:
        await connection.end()
    else:
        connection.clock.advance(KEEP_ALIVE_SECONDS)
    assert connection.is_open()

    connection.clock.advance(ANSWER_SILENCE_SECONDS)
    assert not connection.is_open()


async def test_the_longest_idle_connection_is_closed_for_one_too_many() -> None:
    idle, clock = IdleConnections(2), Clock()
    first, second = (Connection(answer_whole, clock=clock, idle=idle) for _ in range(2))
    await first.send(GET)
    Connection(answer_whole, clock=clock, idle=idle)

    assert first.is_open()
    assert not second.is_open()
    assert len(idle) == 2


@pytest.mark.parametrize("field", [b"", b"Connection: close\r\n"])
async def test_a_connection_whose_body_is_discarded_counts_as_idle(field: bytes) -> None:
    idle, clock = IdleConnections(1), Clock()
    connection = Connection(answer_early, clock=clock, idle=idle)
    await connection.send(PUT + field + b"\r\n" + bytes(100))
    Connection(answer_whole, clock=clock, idle=idle)

    assert not connection.is_open()
    assert len(idle) == 1


async def test_a_request_that_is_answered_is_not_idle() -> None:
    idle, clock = IdleConnections(1), Clock()
    busy = Connection(wait_for_disconnect, clock=clock, idle=idle)
    await busy.send(GET)
    Connection(answer_whole, clock=clock, idle=idle)

    assert busy.is_open()
    assert len(idle) == 1


async def test_a_too_large_head_is_refused() -> None:
    connection = Connection(answer_whole)
    await connection.send(b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES_MAX)

    assert connection.sent.startswith(b"HTTP/1.1 431 ")
    assert connection.is_lingering()


# Reading on demand


def is_paused(connection: Connection) -> bool:
    return connection.transport.is_paused


async def test_a_body_that_nobody_asked_for_is_read_only_a_little() -> None:
    may_ask = asyncio.Event()

    async def ask_later(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        await may_ask.wait()
        await answer_whole(scope, receive, send)

    connection = Connection(ask_later)
    await connection.send(PUT + b"\r\n")
    assert connection.protocol.read_bytes_max == UNASKED_BYTES_MAX
    await connection.send(bytes(100))
    assert is_paused(connection)

    may_ask.set()
    await connection.settle()
    assert not is_paused(connection)
    assert connection.protocol.read_bytes_max == READ_BYTES_MAX

    await connection.send(bytes(1900))
    assert connection.sent.endswith(b"2000")


async def test_a_body_is_not_read_on_while_the_application_stores_a_piece() -> None:
    may_go_on = asyncio.Event()

    async def store_slowly(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        await receive()
        await may_go_on.wait()
        await answer_whole(scope, receive, send)

    connection = Connection(store_slowly)
    await connection.send(PUT + b"\r\n" + bytes(100))
    assert not is_paused(connection)
    await connection.send(bytes(100))
    assert is_paused(connection)

    may_go_on.set()
    await connection.settle()
    assert not is_paused(connection)


async def test_a_disconnect_after_the_whole_body_is_noticed() -> None:
    connection = Connection(wait_for_disconnect)
    await connection.send(PUT + b"\r\n" + bytes(2000))

    assert not is_paused(connection)
    await connection.end()
    assert connection.sent.endswith(b"waited")


async def test_every_read_has_the_size_that_its_connection_wants() -> None:
    connection = Connection(answer_whole)
    reader = BoundedReads(connection.protocol)
    content = PUT + b"\r\n" + bytes(2000)
    assert len(reader.get_buffer(-1)) == UNASKED_BYTES_MAX

    reader.get_buffer(-1)[: len(content)] = content
    reader.buffer_updated(len(content))
    await connection.settle()

    assert connection.sent.endswith(b"2000")


@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 431)])
async def test_a_head_with_too_many_fields_is_refused(excess: int, status: int) -> None:
    connection = Connection(answer_whole)
    fields = b"X: y\r\n" * (HEAD_FIELDS_MAX - 1 + excess)
    await connection.send(b"GET / HTTP/1.1\r\nHost: gateway\r\n" + fields + b"\r\n" + GET)

    assert connection.sent.startswith(b"HTTP/1.1 %d " % status)
    assert connection.is_lingering() == bool(excess)


# Pipelined requests


async def test_pipelined_requests_beyond_the_limit_are_left_to_the_next_connection() -> None:
    connection = Connection(answer_early)
    connection.protocol.data_received(3 * PIPELINED_MAX * GET)
    while not connection.transport.has_ended:
        await connection.settle()

    assert connection.sent.count(b"HTTP/1.1 404") == PIPELINED_MAX
    assert connection.sent.count(b"connection: close") == 1
    assert connection.sent.rindex(b"connection: close") > connection.sent.rindex(b"HTTP/1.1")
    await connection.send(GET)
    assert len(connection.application.calls) == PIPELINED_MAX


async def test_nothing_is_read_while_as_many_requests_as_allowed_are_queued() -> None:
    connection = Connection(answer_whole)
    may_answer = asyncio.Semaphore(0)

    async def answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        await may_answer.acquire()
        await answer_whole(scope, receive, send)

    connection.application.answer = answer
    paused = []
    for count in (PIPELINED_MAX - 1, 1):
        await connection.send(count * GET)
        paused.append(connection.transport.is_paused)
    may_answer.release()
    await connection.settle()
    paused.append(connection.transport.is_paused)

    assert connection.sent.count(b"HTTP/1.1 200") == 1
    assert paused == [False, True, False]


async def test_a_pipelined_body_is_read_once_its_turn_comes() -> None:
    connection = Connection(answer_whole)
    await connection.send(GET + PUT + b"\r\n" + bytes(100))
    await connection.send(bytes(1900) + GET)

    assert connection.sent.count(b"HTTP/1.1 200") == 3
    assert b"\r\n\r\n2000HTTP" in connection.sent
    assert not connection.transport.is_paused
