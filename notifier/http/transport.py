"""httpx over the bounded connections."""

from collections.abc import AsyncIterator
from typing import Any, Final

import httpx

from notifier.http.answer import Answer
from notifier.http.connection import Connection, Origin
from notifier.http.errors import ConnectionBroken, RequestRefused
from notifier.http.network import CheckedNetwork
from notifier.http.pool import Pool
from notifier.http.trace import EXTENSION, Trace
from schemas.policy.webhook_urls import DEFAULT_PORTS

EXCHANGE: Final = "waybill.exchange"
"""The response's extension that holds its `Exchange`."""

BODY_MAX: Final = "waybill.body_max"
"""The request's extension that limits the bytes of the answer's body that are read."""

BODY_MAX_DEFAULT: Final = 16 * 1024

_BODY_TIME: Final = 2.0
_SUCCESS: Final = range(200, 300)


class Exchange:
    """The body of an answer, and what becomes of its connection."""

    def __init__(self, connection: Connection, answer: Answer, pool: Pool) -> None:
        self.answer = answer
        self._connection = connection
        self._pool = pool

    async def rest(self, *, within: float) -> None:
        """Wait for the end of the body, at most `within` seconds."""
        await self._connection.rest(self.answer, within=within)

    def end(self) -> None:
        """Give the connection back; the rest of a 2xx is read first, without anybody waiting."""
        self._pool.release(self._connection, self.answer, drain=self.answer.status in _SUCCESS)


class BoundedTransport(httpx.AsyncBaseTransport):
    """An HTTP/1.1 transport; raises the exceptions of `notifier.http.errors`.

    A response has no headers but ``Retry-After``. With the other fields httpx would send one
    receiver's cookies to the next, and parse the target of a redirect.
    """

    def __init__(self, *, pool: Pool, network: CheckedNetwork) -> None:
        self._pool = pool
        self._network = network

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer once the head is read.

        A connection that was idle may have been closed by the receiver at the same moment. If it
        breaks before the first byte of the answer, the request is sent once more, on a new
        connection.
        """
        extensions = request.extensions
        trace: Trace = extensions.get(EXTENSION) or Trace()
        body_max: int = extensions.get(BODY_MAX, BODY_MAX_DEFAULT)
        url = request.url
        # Not `host`, which httpx decodes from IDNA.
        host = url.raw_host.decode("ascii")
        origin = Origin(url.scheme, host, url.port or DEFAULT_PORTS[url.scheme])
        data = _serialise(request, await request.aread())
        connection = self._pool.take(origin)
        if connection is not None:
            trace.is_reused = True
            trace.remote_address = connection.address
            try:
                answer = await _send(connection, data, trace=trace, body_max=body_max)
            except ConnectionBroken as broken:
                if broken.heard:
                    raise
                connection = None
        if connection is None:
            trace.is_reused = False
            trace.remote_address = None
            connection = await self._network.open(origin, trace)
            answer = await _send(connection, data, trace=trace, body_max=body_max)
        exchange = Exchange(connection, answer, self._pool)
        return httpx.Response(
            answer.status or 0,
            headers=[(b"retry-after", value.encode("latin-1")) for value in answer.retry_after],
            stream=_Body(exchange),
            extensions={EXCHANGE: exchange},
        )

    async def aclose(self) -> None:
        self._pool.close()


class BoundedClient(httpx.AsyncClient):
    """A client whose `send` is its transport alone: no cookies, redirects or authentication.

    httpx spends more on these, for each request, than the transport on the request.
    """

    def __init__(self, *, transport: BoundedTransport) -> None:
        super().__init__(
            transport=transport,
            timeout=None,  # the caller has one deadline for all phases
            follow_redirects=False,
            trust_env=False,
        )
        self._bounded = transport

    async def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        **_: Any,  # noqa: ANN401  # httpx's signature
    ) -> httpx.Response:
        response = await self._bounded.handle_async_request(request)
        response.request = request
        if not stream:
            await response.aread()
        return response


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await self._exchange.rest(within=_BODY_TIME)
        yield bytes(self._exchange.answer.body)

    async def aclose(self) -> None:
        self._exchange.end()


async def _send(connection: Connection, data: bytes, *, trace: Trace, body_max: int) -> Answer:
    trace.phase = "waiting for the response"
    try:
        return await connection.request(data, body_max=body_max)
    except BaseException:
        connection.abort()
        raise
    finally:
        trace.first_byte = connection.first_byte


def _serialise(request: httpx.Request, body: bytes) -> bytes:
    """Return the bytes of a request.

    Raises:
        RequestRefused: a header could end its line and begin another.
    """
    lines = [f"{request.method} {request.url.raw_path.decode('ascii')} HTTP/1.1".encode("ascii")]
    lines += [b"%b: %b" % field for field in request.headers.raw]
    lines += [b"", b""]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
        raise RequestRefused("a header of the request has a line end or a NUL")
    return head + body
