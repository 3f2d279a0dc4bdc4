"""A TCP proxy that can drop its connections."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Self, TypeAlias

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

HEAD_MAX = 256 * 1024
"""The longest line or request head that a stream can return whole."""
PIECE = 64 * 1024


async def pass_bytes(here: Streams, there: Streams) -> None:
    """Pass bytes both ways until one side closes its connection."""
    await until_either_ends(_pass(here[0], there[1]), _pass(there[0], here[1]))


async def until_either_ends(*directions: Coroutine[None, None, None]) -> None:
    """Run both directions; the end of one ends the other.

    Raises:
        Exception: an error of a direction other than a closed connection.
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


class TcpProxy:
    """Accepts connections on a loopback port and passes their bytes to a server."""

    def __init__(
        self,
        upstream: Callable[[], Awaitable[Streams]],
        *,
        converse: Callable[[Streams, Streams], Awaitable[None]] = pass_bytes,
    ) -> None:
        """Create a proxy that does not listen yet.

        Args:
            upstream: opens a connection to the server.
            converse: passes bytes between a client and the server until one side ends.
        """
        self._upstream = upstream
        self._converse = converse
        self._conversations: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []
        self._server: asyncio.Server | None = None
        self._is_failing = False
        self.failed = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        if self._errors:
            raise ExceptionGroup("the proxy failed", self._errors)

    async def accept(self) -> None:
        """Pass new connections; after `refuse`, listen on the same port."""
        self._is_failing = False
        if self._server is not None:
            return
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", self.port, limit=HEAD_MAX
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.drop()

    async def fail(self) -> None:
        """Drop every connection, and each new one until `accept`; `failed` counts the new ones."""
        self._is_failing = True
        await self.drop()

    async def drop(self) -> int:
        """Drop every connection; return how many there were."""
        conversations = set(self._conversations)
        for conversation in conversations:
            conversation.cancel()
        if conversations:
            await asyncio.wait(conversations)
        return len(conversations)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_failing:
            self.failed += 1
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        try:
            # If the server is down, the client sees a closed connection.
            with suppress(OSError, asyncio.CancelledError):
                await self._forward((reader, writer))
        except Exception as error:  # noqa: BLE001  # nothing awaits this task: raised at the end
            self._errors.append(error)
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
