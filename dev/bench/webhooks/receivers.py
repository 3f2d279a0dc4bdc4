"""`python -m dev.bench.webhooks.receivers BEHAVIOUR=COUNT …`: receivers on free ports of 127.0.0.1.

Prints one JSON object with the ports of each behaviour, then answers each line of its standard
input with what the receivers that answer 204 have seen since the last line.
"""

import asyncio
import gzip
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_ID: Final = re.compile(rb"\r\nwebhook-id: *([^\r]+)\r\n", re.IGNORECASE)
_TIME: Final = re.compile(rb'"time":"([^"]+)"')
NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
PIECE: Final = bytes(64 * 1024)


class Seen:
    """What the good receivers have seen.

    Attributes:
        latencies: seconds from the time in the event to the arrival of the request.
        connections: connections opened.
    """

    def __init__(self) -> None:
        self.arrivals: list[float] = []
        self.latencies: list[float] = []
        self.ids: set[bytes] = set()
        self.connections = 0

    def report(self) -> dict[str, object]:
        report: dict[str, object] = {
            "requests": len(self.arrivals),
            "distinct": len(self.ids),
            "connections": self.connections,
            "first": self.arrivals[0] if self.arrivals else None,
            "last": self.arrivals[-1] if self.arrivals else None,
            "latencies": self.latencies,
        }
        self.arrivals, self.latencies, self.connections = [], [], 0
        return report


class Good(asyncio.Protocol):
    """Answers every request with 204; parses as little as it can, so that it costs little."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._seen.connections += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end + 2)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            self._record(self._buffer[:whole], head=end + 2)
            self._buffer = self._buffer[whole:]
            if isinstance(self._transport, asyncio.Transport):
                self._transport.write(NO_CONTENT)

    def _record(self, request: bytes, *, head: int) -> None:
        now = time.time()
        self._seen.arrivals.append(now)
        if found := _ID.search(request, 0, head):
            self._seen.ids.add(found[1])
        if sent := _TIME.search(request, head):
            at = datetime.fromisoformat(sent[1].decode()).timestamp()
            self._seen.latencies.append(now - at)


Handle: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answer: TypeAlias = Callable[[], AsyncIterator[bytes]]


async def _hanging() -> AsyncIterator[bytes]:
    await asyncio.sleep(3600)
    yield b""


async def _slow() -> AsyncIterator[bytes]:
    await asyncio.sleep(1.9)
    yield NO_CONTENT


async def _unavailable() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


async def _endless_continue() -> AsyncIterator[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n" * 2000


async def _chunk_extensions() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 500 Error\r\ntransfer-encoding: chunked\r\n\r\n"
    while True:
        yield (b"1;" + b"e" * 200 + b"=1\r\nx\r\n") * 200


async def _large_body() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 500 Error\r\ncontent-length: 1000000000\r\n\r\n"
    for _ in range(1_000_000_000 // len(PIECE)):
        yield PIECE


async def _gzip_bomb() -> AsyncIterator[bytes]:
    bomb = gzip.compress(bytes(50_000_000))
    yield b"HTTP/1.1 500 Error\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    yield bomb


async def _dripped_head() -> AsyncIterator[bytes]:
    for byte in b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000:
        yield bytes([byte])
        await asyncio.sleep(0.5)


async def _dripped_body() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
    while True:
        yield b"x"
        await asyncio.sleep(0.5)


BEHAVIOURS: Final[dict[str, Answer]] = {
    "hanging": _hanging,
    "slow": _slow,
    "unavailable": _unavailable,
    "endless 100": _endless_continue,
    "chunk extensions": _chunk_extensions,
    "1 GB body": _large_body,
    "gzip bomb": _gzip_bomb,
    "dripped head": _dripped_head,
    "dripped body": _dripped_body,
}
GOOD: Final = "good"


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answer: Answer
) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
            async for piece in answer():
                writer.write(piece)
                await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        # The client closed the connection, which many behaviours provoke.
        return
    finally:
        writer.close()


async def main(wanted: list[str]) -> None:
    seen, loop = Seen(), asyncio.get_running_loop()
    ports: dict[str, list[int]] = {}
    for each in wanted:
        behaviour, _, count = each.partition("=")
        ports[behaviour] = []
        for _ in range(int(count)):
            server: asyncio.Server
            if behaviour == GOOD:
                server = await loop.create_server(partial(Good, seen), "127.0.0.1", 0, backlog=1000)
            else:
                serve = partial(_serve, answer=BEHAVIOURS[behaviour])
                server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
            ports[behaviour].append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    reader = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps(seen.report()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
