"""The HTTP client of a delivering process: checked connections, kept for the next event."""

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
"""How long a connection is kept; longer, and the networks between forget it without a word."""

IDLE_MAX: Final = 200
"""Connections kept while nothing is sent over them; bounds files and memory in the number of endpoints."""

# All that delivery reads. Left in, httpx would keep the cookies one receiver
# sets for the next, and parse where a redirect leads.
_FIELDS_KEPT: Final = frozenset({b"retry-after"})


class DeliveryTransport(httpx.AsyncBaseTransport):
    """Sends over HTTP/1.1 connections of its own; `httpcore` exceptions pass as they are.

    It replaces `httpcore.AsyncConnectionPool`, whose work per request grows
    with the square of the connections open: at fifty it sends a tenth as
    much. Here a connection belongs to one request at a time and, while idle,
    to the name it was made for.
    """

    def __init__(
        self, *, network: httpcore.AsyncNetworkBackend, ssl_context: ssl.SSLContext
    ) -> None:
        self._network = network
        self._ssl_context = ssl_context
        # Longest unused first; the closed transport keeps none.
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
            # One cancelled before its first byte is still open, and nobody else knows it.
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
        # Not idle: the answer was not read to its end. Not spent: there is more than the answer.
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
    """Yield the client of a delivering process, for `attempt.post` alone.

    It has no timeouts of its own and does not bound how many requests are
    under way; the caller does both.

    Args:
        settings: how many names may be resolved at once.
        allow_loopback: whether loopback addresses count as targets.
        resolve: finds addresses; the system's resolver by default.
        network: makes TCP connections; the operating system's by default.
        ssl_context: whose certificates to believe; the public authorities by default.
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
        # Asked for and sent anyway, a compressed answer is not inflated: it could be a bomb.
        "accept-encoding": "identity",
    }
    try:
        async with httpx.AsyncClient(
            transport=transport,
            headers=headers,
            timeout=None,  # noqa: S113  # an attempt has one deadline over all its phases
            follow_redirects=False,
            trust_env=False,  # httpx ignores proxies when it is given a transport; not left to that
        ) as client:
            yield client
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _user_agent() -> str:
    try:
        return f"Waybill/{version('waybill')}"
    except PackageNotFoundError:
        # A checkout that runs without being installed has no version.
        return "Waybill"
