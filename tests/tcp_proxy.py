"""A server that passes connections on to another one, and can drop them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Self, TypeAlias

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

HEAD_MAX = 256 * 1024
"""The longest line, or head of a request, that can be read at once."""
PIECE = 64 * 1024


async def pass_bytes(here: Streams, there: Streams) -> None:
    """Pass on whatever comes, both ways, until one side hangs up."""
    await until_one_hangs_up(_pass(here[0], there[1]), _pass(there[0], here[1]))


async def until_one_hangs_up(*directions: Coroutine[None, None, None]) -> None:
    """Run what passes bytes each way; whoever hangs up ends both.

    Raises:
        Exception: what one of them met, other than the end of a connection.
    """
    running = {asyncio.create_task(direction) for direction in directions}
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in running:
            each.cancel()
        await asyncio.wait(running)
    for each in running:
        with suppress(OSError, EOFError, asyncio.CancelledError):
            each.result()


class Forwarder:
    """Takes connections on a port of loopback, until told to drop them or to take no more."""

    def __init__(
        self,
        upstream: Callable[[], Awaitable[Streams]],
        *,
        converse: Callable[[Streams, Streams], Awaitable[None]] = pass_bytes,
    ) -> None:
        """Take what opens a connection to the server, and what passes on between the two."""
        self._upstream = upstream
        self._converse = converse
        self._conversations: set[asyncio.Task[None]] = set()
        self._faults: list[Exception] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        if self._faults:
            raise ExceptionGroup("not everything was passed on as it came", self._faults)

    async def accept(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(
            self._take, "127.0.0.1", self.port, limit=HEAD_MAX
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Drop every connection and take no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.drop()

    async def drop(self) -> None:
        """Drop every connection."""
        conversations = set(self._conversations)
        for conversation in conversations:
            conversation.cancel()
        if conversations:
            await asyncio.wait(conversations)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        try:
            # Where the server is down, its client is hung up on.
            with suppress(OSError, asyncio.CancelledError):
                await self._forward((reader, writer))
        except Exception as error:  # noqa: BLE001  # told at the end: nobody awaits this
            self._faults.append(error)
        finally:
            writer.transport.abort()

    async def _forward(self, here: Streams) -> None:
        there = await self._upstream()
        try:
            await self._converse(here, there)
        finally:
            there[1].transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
