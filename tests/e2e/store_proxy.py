"""A proxy in front of the object store that records requests and can limit their speed."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from dev.stack.background_loop import BackgroundLoop
from tests.tcp_proxy import HEAD_MAX, PIECE, Streams, TcpProxy, until_either_ends

BODILESS = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


@dataclass
class ProxiedRequest:
    """A request, recorded as soon as its head arrived."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    status: int | None = None
    """The status of the store's answer; None until it arrives."""

    @property
    def part(self) -> int | None:
        """The number of the part that the request sends; None for other requests."""
        if self.method != "PUT" or "uploadId" not in self.query:
            return None
        return int(self.query["partNumber"][0])

    @property
    def is_stored(self) -> bool:
        return self.status == HTTPStatus.OK


@dataclass
class _Head:
    start: str
    headers: dict[str, str]
    raw: bytes

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))

    @property
    def is_chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"


@dataclass
class _SpeedLimit:
    """Limits the speed of all connections together."""

    bytes_per_second: float | None = None
    _free_at: float = field(default=0, init=False)

    async def wait_for(self, size_bytes: int) -> None:
        if self.bytes_per_second is None:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + size_bytes / self.bytes_per_second
        await asyncio.sleep(self._free_at - now)


class StoreProxy:
    """Passes every request to the store at `upstream`, byte for byte. Thread-safe.

    Clients sign for the address of the proxy; the proxy leaves the Host header unchanged.
    """

    def __init__(self, upstream: str) -> None:
        address = urlsplit(upstream)
        self._speed = _SpeedLimit()
        self._requests: list[ProxiedRequest] = []
        self._loop = BackgroundLoop("store proxy")
        self._proxy = TcpProxy(
            partial(asyncio.open_connection, address.hostname, address.port or 80, limit=HEAD_MAX),
            converse=self._converse,
        )

    def __enter__(self) -> Self:
        self._loop.run(self._proxy.accept())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._loop.run(self._proxy.__aexit__(kind, error, traceback))
        finally:
            self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._proxy.port}"

    def limit_speed(self, bytes_per_second: float) -> None:
        """Limit the bodies of all requests together to this speed."""
        self._speed.bytes_per_second = bytes_per_second

    def lift_speed_limit(self) -> None:
        self._speed.bytes_per_second = None

    def requests_for(self, upload_id: str) -> list[ProxiedRequest]:
        """Return the requests whose path names an upload, in the order of their heads."""
        return [request for request in tuple(self._requests) if upload_id in request.path]

    def part_requests(self, upload_id: str) -> list[ProxiedRequest]:
        """Return the requests that sent a part of an upload or began to send it."""
        return [request for request in self.requests_for(upload_id) if request.part is not None]

    async def _converse(self, here: Streams, there: Streams) -> None:
        unanswered: deque[ProxiedRequest] = deque()
        await until_either_ends(
            self._pass_requests(here[0], there[1], unanswered),
            self._pass_answers(there[0], here[1], unanswered),
        )

    async def _pass_requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        unanswered: deque[ProxiedRequest],
    ) -> None:
        while True:
            head = await _head(reader)
            method, target, _ = head.start.split(" ", 2)
            url = urlsplit(target)
            request = ProxiedRequest(method, url.path, parse_qs(url.query, keep_blank_values=True))
            self._requests.append(request)
            unanswered.append(request)
            writer.write(head.raw)
            await _pass_body(head, reader, writer, speed=self._speed)

    async def _pass_answers(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        unanswered: deque[ProxiedRequest],
    ) -> None:
        while True:
            head = await _head(reader)
            status = int(head.start.split(" ", 2)[1])
            if status < HTTPStatus.OK:  # "100 Continue" precedes the answer
                writer.write(head.raw)
                continue
            request = unanswered.popleft()
            request.status = status
            writer.write(head.raw)
            if request.method != "HEAD" and status not in BODILESS:
                await _pass_body(head, reader, writer, speed=_SpeedLimit())


async def _head(reader: asyncio.StreamReader) -> _Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    start, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return _Head(start, {name.lower(): value.strip() for name, value in pairs}, raw)


async def _pass_body(
    head: _Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, speed: _SpeedLimit
) -> None:
    if not head.is_chunked:
        await _pass_on(head.length, reader, writer, speed=speed)
        return
    size = -1
    while size != 0:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        writer.write(line)
        await _pass_on(size + len(b"\r\n"), reader, writer, speed=speed)


async def _pass_on(
    length: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, speed: _SpeedLimit
) -> None:
    left = length
    while left:
        piece = await reader.read(min(left, PIECE))
        if not piece:
            raise EOFError
        left -= len(piece)
        await speed.wait_for(len(piece))
        writer.write(piece)
        await writer.drain()
    await writer.drain()
