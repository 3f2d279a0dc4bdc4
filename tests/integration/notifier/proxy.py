"""A way to a server that can be cut: what a restart or a network failure looks like from here."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TypeAlias

from sqlalchemy.engine import make_url
from yarl import URL

from schemas.settings import BrokerSettings, DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Passes TCP connections on, until told to drop them or to take no more."""

    def __init__(self, upstream: Callable[[], Awaitable[Streams]]) -> None:
        """Take what opens a connection to the server."""
        self._upstream = upstream
        self._conversations: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    def in_front_of_broker(self, settings: BrokerSettings) -> BrokerSettings:
        """Return the settings of the same broker, reached through here."""
        url = URL(settings.rabbitmq_url.get_secret_value())
        through = str(url.with_host("127.0.0.1").with_port(self.port))
        return BrokerSettings.model_validate({"rabbitmq_url": through})

    def in_front_of_database(self, settings: DatabaseSettings) -> DatabaseSettings:
        """Return the settings of the same database, reached through here."""
        url = make_url(settings.database_url.get_secret_value())
        through = url.set(host="127.0.0.1", port=self.port, query={"sslmode": "disable"})
        return DatabaseSettings.model_validate(
            {"database_url": through.render_as_string(hide_password=False)}
        )

    async def accept(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", self.port)
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

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        upstream_reader, upstream_writer = await self._upstream()
        # Whoever hangs up ends both halves.
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.wait(
                {
                    asyncio.create_task(_pass(reader, upstream_writer)),
                    asyncio.create_task(_pass(upstream_reader, writer)),
                },
                return_when=asyncio.FIRST_COMPLETED,
            )
        upstream_writer.transport.abort()
        writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def to_broker(settings: BrokerSettings) -> Proxy:
    url = URL(settings.rabbitmq_url.get_secret_value())
    return Proxy(lambda: asyncio.open_connection(url.host, url.port or 5672))


def to_database(settings: DatabaseSettings) -> Proxy:
    url = make_url(settings.database_url.get_secret_value())
    host = str(url.query.get("host", url.host))
    port = url.port or 5432
    if host.startswith("/"):
        return Proxy(lambda: asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}"))
    return Proxy(lambda: asyncio.open_connection(host, port))
