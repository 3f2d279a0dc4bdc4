"""The HTTP client for deliveries: checked connections, kept alive for the next event."""

import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol

import httpcore
import httpx

from notifier.delivery import framing
from notifier.delivery.network import CheckedNetwork, Resolver, SystemResolver
from schemas.settings import DeliverySettings

KEEPALIVE: Final = timedelta(seconds=30)
"""How long an idle connection is kept; networks silently drop connections that are idle longer."""

IDLE_MAX: Final = 200
"""Idle connections kept; bounds open files and memory."""

# The only field that delivery reads. With the other fields httpx would send one
# receiver's cookies to the next, and parse the target of a redirect.
_FIELDS_KEPT: Final = frozenset({b"retry-after"})


class DeliveryTransport(httpx.AsyncBaseTransport):
    """An HTTP/1.1 transport with its own connections; raises `httpcore` exceptions unchanged.

    It replaces `httpcore.AsyncConnectionPool`, whose work per request grows with
    the square of the open connections: at fifty it has a tenth of the throughput.
    A connection serves one request at a time, and only the origin it was opened for.
    """

    def __init__(
        self, *, network: httpcore.AsyncNetworkBackend, ssl_context: ssl.SSLContext
    ) -> None:
        self._network = network
        self._ssl_context = ssl_context
        # Longest idle first; a closed transport keeps none.
        self._idle: list[tuple[str, httpcore.AsyncHTTPConnection]] = []
        self._idle_max = IDLE_MAX

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        connection = await self._take(url.origin)
        try:
            answer = await connection.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except BaseException:
            # A request cancelled before its first byte leaves the connection open.
            await connection.aclose()
            raise
        return httpx.Response(
            answer.status,
            headers=[field for field in answer.headers if field[0].lower() in _FIELDS_KEPT],
            stream=_Body(answer, done=partial(self._give_back, url.origin, connection)),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        self._idle_max = 0
        await self._shrink()

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        name = str(origin)
        while (found := self._last_idle(name)) is not None:
            _, connection = self._idle.pop(found)
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=KEEPALIVE.total_seconds(),
            network_backend=self._network,
        )

    def _last_idle(self, name: str) -> int | None:
        positions = range(len(self._idle) - 1, -1, -1)
        return next((position for position in positions if self._idle[position][0] == name), None)

    async def _give_back(
        self, origin: httpcore.Origin, connection: httpcore.AsyncHTTPConnection, *, spent: bool
    ) -> None:
        # Otherwise the response was not read to its end (not idle), or bytes follow it (not spent).
        if connection.is_idle() and spent:
            self._idle.append((str(origin), connection))
            await self._shrink()
        else:
            await connection.aclose()

    async def _shrink(self) -> None:
        while self._idle and (len(self._idle) > self._idle_max or self._idle[0][1].has_expired()):
            _, connection = self._idle.pop(0)
            await connection.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response, *, done: "_GiveBack") -> None:
        self._answer = answer
        self._done = done
        self._last_chunk = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._answer.aiter_stream():
            self._last_chunk = chunk
            yield chunk

    async def aclose(self) -> None:
        try:
            await self._answer.aclose()
        finally:
            await self._done(
                spent=framing.ends_exactly(
                    self._answer.extensions["network_stream"].get_extra_info("last_read"),
                    last_chunk=self._last_chunk,
                    chunked=any(
                        name.lower() == b"transfer-encoding" for name, _ in self._answer.headers
                    ),
                )
            )


class _GiveBack(Protocol):
    async def __call__(self, *, spent: bool) -> None: ...


@asynccontextmanager
async def open_client(
    settings: DeliverySettings,
    *,
    allow_loopback: bool,
    resolve: Resolver | None = None,
    network: httpcore.AsyncNetworkBackend | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield the HTTP client for `attempt.post`.

    The client has no timeouts and no limit on concurrent requests; the caller has both.

    Args:
        settings: the number of concurrent name look-ups.
        allow_loopback: whether loopback addresses are allowed targets.
        resolve: resolves host names; by default the system's resolver.
        network: opens TCP connections; by default the operating system's.
        ssl_context: the trusted authorities; by default the public ones.
    """
    threads = ThreadPoolExecutor(settings.webhook_concurrency, thread_name_prefix="resolve")
    transport = DeliveryTransport(
        network=CheckedNetwork(
            resolve=resolve or SystemResolver(threads),
            allow_loopback=allow_loopback,
            network=network or httpcore.AnyIOBackend(),
        ),
        ssl_context=ssl_context or httpx.create_ssl_context(),
    )
    headers = {
        "user-agent": _user_agent(),
        "accept": "*/*",
        # A response that is compressed nevertheless is not decompressed: it could be a bomb.
        "accept-encoding": "identity",
    }
    try:
        async with httpx.AsyncClient(
            transport=transport,
            headers=headers,
            timeout=None,  # noqa: S113  # one deadline covers all phases of an attempt
            follow_redirects=False,
            trust_env=False,  # explicit, although httpx ignores proxies when it has a transport
        ) as client:
            yield client
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _user_agent() -> str:
    try:
        return f"Waybill/{version('waybill')}"
    except PackageNotFoundError:
        # A checkout that is not installed has no version.
        return "Waybill"
