"""A connection whose bytes the test chooses."""

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

TIMEOUT: Final = 10
"""Seconds in which the gateway must answer or close the connection."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer; the names of its fields are in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  # JSON of any kind
        return json.loads(self.body)


class Connection:
    """A raw connection to a gateway; an asynchronous context manager."""

    def __init__(self, *, port: int, key: str) -> None:
        self._port = port
        self.key = key
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()

    async def send(self, *lines: str, body: bytes = b"") -> None:
        """Send the lines of a head and a body, exactly as they are given."""
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await self.writer.drain()

    async def request(
        self, method: str, path: str, *fields: str, body: bytes = b"", version: str = "1.1"
    ) -> None:
        """Send a request with the key of the gateway and a Host field."""
        await self.send(
            f"{method} {path} HTTP/{version}",
            "Host: gateway",
            f"Authorization: Bearer {self.key}",
            *fields,
            body=body,
        )

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Read the next final answer, framed by its length, its chunks or the end of the connection.

        Raises:
            asyncio.IncompleteReadError: the connection ended within the answer or before it.
            TimeoutError: the answer is not complete within `TIMEOUT`.
        """
        async with asyncio.timeout(TIMEOUT):
            while True:
                status, fields = await self.head()
                if status >= 200:
                    break
            has_body = not to_head and status not in {204, 304}
            body = await self._body(fields) if has_body else b""
        return Answer(status=status, fields=fields, body=body)

    async def rest(self) -> bytes:
        """Return everything until the end of the connection.

        Raises:
            ConnectionResetError: the gateway reset the connection.
            TimeoutError: the connection has not ended within `TIMEOUT`.
        """
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.read()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of the next answer; return its status and its fields."""
        start, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        fields = dict(line.split(": ", 1) for line in lines if line)
        return int(start.split()[1]), {name.lower(): value for name, value in fields.items()}

    async def _body(self, fields: dict[str, str]) -> bytes:
        if "content-length" in fields:
            return await self.reader.readexactly(int(fields["content-length"]))
        if "transfer-encoding" not in fields:
            return await self.reader.read()
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body
