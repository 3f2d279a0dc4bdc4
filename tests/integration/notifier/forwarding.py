"""TCP over a Unix socket, between two network namespaces."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def forward(port: int, *, to: Path) -> AsyncIterator[None]:
    """Forward connections to 127.0.0.1:`port` to a Unix socket."""
    server = await asyncio.start_server(
        _join(lambda: asyncio.open_unix_connection(to)), "127.0.0.1", port
    )
    try:
        yield
    finally:
        server.close()


@asynccontextmanager
async def expose(host: str, port: int, *, at: Path) -> AsyncIterator[None]:
    """Forward connections to a Unix socket to `host`:`port`."""
    server = await asyncio.start_unix_server(_join(lambda: asyncio.open_connection(host, port)), at)
    try:
        yield
    finally:
        server.close()


def _join(
    connect: Callable[[], Awaitable[Streams]],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Either end, or the end of the test, ends the conversation.
        with suppress(OSError, asyncio.CancelledError):
            onward_reader, onward = await connect()
            await asyncio.gather(_pump(reader, onward), _pump(onward_reader, writer))

    return converse


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
