"""Sends many small requests over a few persistent connections, at little cost for each.

`wire.Connection` would need more processor time for a request than the server that is measured.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

import uvloop

TIMEOUT_SECONDS: Final = 120

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class UnexpectedStatus(Exception):
    def __init__(self, answer: bytes) -> None:
        super().__init__(answer[:500].decode(errors="replace"))


@dataclass(frozen=True, kw_only=True)
class SmallRequest:
    """A request whose bytes are the same every time, for the server at `url`."""

    url: str
    content: bytes

    @classmethod
    def of(
        cls,
        method: str,
        url: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> Self:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return cls(url=url, content="\r\n".join([*lines, "", ""]).encode() + body)


@dataclass(kw_only=True)
class Answers:
    """What the server answered, and how long each answer took."""

    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.milliseconds) / self.seconds


class _Client(asyncio.Protocol):
    """Sends the next request when the answer to the last one is complete."""

    def __init__(self, request: bytes, *, left: Iterator[int], answers: Answers) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._request = request
        self._left = left
        self._answers = answers
        self._received = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's transport
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_ends = self._received.find(b"\r\n\r\n")
        if head_ends < 0:
            return
        found = _LENGTH.search(self._received, 0, head_ends + 2)
        length = int(found[1]) if found else 0
        if len(self._received) < head_ends + 4 + length:
            return
        if not self._received.startswith(b"HTTP/1.1 2"):
            self.ended.set_exception(UnexpectedStatus(self._received))
            self._transport.close()
            return
        self._answers.milliseconds.append((time.perf_counter() - self._sent_at) * 1000)
        self._answers.bodies.append(self._received[head_ends + 4 :])
        self._received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionResetError("the server closed"))

    def _send(self) -> None:
        if next(self._left, None) is None:
            self.ended.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


def send(request: SmallRequest, *, count: int, connections: int) -> Answers:
    """Send a request `count` times in all.

    Raises:
        UnexpectedStatus: an answer was not 2xx.
    """
    return uvloop.run(_send(request, count=count, connections=connections))


async def _send(request: SmallRequest, *, count: int, connections: int) -> Answers:
    address = urlsplit(request.url)
    loop = asyncio.get_running_loop()
    left, answers = iter(range(count)), Answers()
    began = time.perf_counter()
    clients = [
        (
            await loop.create_connection(
                lambda: _Client(request.content, left=left, answers=answers),
                address.hostname or "",
                address.port or 80,
            )
        )[1]
        for _ in range(connections)
    ]
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await asyncio.gather(*(client.ended for client in clients))
    answers.seconds = time.perf_counter() - began
    return answers
