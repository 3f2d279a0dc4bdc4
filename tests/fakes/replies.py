"""Replies of a `Receiver`, correct and broken.

A reply writes to the connection. Only a reply that is valid HTTP leaves the connection open
for the next request.
"""

import asyncio
import gzip
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Final, TypeAlias

Reply: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

BLOCK: Final = bytes(64 * 1024)


def status(
    code: int = 204, *, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Reply:
    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(code, headers, length=len(body)) + body)
        await writer.drain()

    return reply


def redirect(to: str, *, code: int = 308) -> Reply:
    return status(code, headers={"location": to})


def late(delay: timedelta, reply: Reply) -> Reply:
    """Send `reply` after `delay`."""

    async def delayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay.total_seconds())
        await reply(reader, writer)

    return delayed


def silence() -> Reply:
    """Read the request and never answer."""

    async def reply(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    return reply


def hang_up() -> Reply:
    """Read the request and close the connection."""
    return raw(b"")


def raw(data: bytes) -> Reply:
    """Send any bytes and close the connection."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return reply


def stuffed(data: bytes) -> Reply:
    """Send any bytes, for example two answers, and keep the connection open."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return reply


def drip(data: bytes, *, every: timedelta) -> Reply:
    """Send bytes one by one, then close the connection."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(every.total_seconds())
        writer.close()

    return reply


def flood(piece: bytes, *, head: bytes = b"") -> Reply:
    """Send `head`, then `piece` again and again, as fast as the client reads."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        block = piece * (len(BLOCK) // len(piece))
        while True:
            writer.write(block)
            await writer.drain()

    return reply


def reset(data: bytes) -> Reply:
    """Send any bytes and reset the connection (RST)."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return reply


def slow_headers(*, every: timedelta) -> Reply:
    """Send a long header one byte at a time."""
    return drip(b"HTTP/1.1 200 OK\r\nx-slow: " + b"z" * 10_000, every=every)


def slow_body(*, every: timedelta, code: int = 200) -> Reply:
    """Send the headers at once and the body one byte at a time."""
    body = drip(b"z" * 10_000, every=every)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(code, None, length=10_000))
        await body(reader, writer)

    return reply


def huge(size_bytes: int, *, code: int = 200) -> Reply:
    """Announce a body of this size and send it as fast as the client reads."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(code, None, length=size_bytes))
        for _block in range(size_bytes // len(BLOCK)):
            writer.write(BLOCK)
            await writer.drain()
        writer.write(BLOCK[: size_bytes % len(BLOCK)])

    return reply


def gzip_bomb(size_bytes: int) -> Reply:
    """Send a small body that inflates to `size_bytes`."""
    bomb = gzip.compress(bytes(size_bytes))
    return status(200, headers={"content-encoding": "gzip"}, body=bomb)


def _head(code: int, headers: Mapping[str, str] | None, *, length: int) -> bytes:
    known = {member.value: member.phrase for member in HTTPStatus}
    lines = [f"HTTP/1.1 {code} {known.get(code, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if code != HTTPStatus.NO_CONTENT:
        lines.append(f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
