"""A DNS server, over UDP and TCP."""

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, cast

A: Final = 1
AAAA: Final = 28
UDP_MAX: Final = 512

Answers = Callable[[str], Sequence[str] | None]
"""The addresses of a name; None stays silent."""


@dataclass
class NameServer:
    """Answers from a function; records the questions for IPv4 addresses."""

    answers: Answers
    ttl: int = 0
    port: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reply(self, query: bytes, *, size_max: int | None) -> bytes | None:
        """Return the message for a query, truncated to `size_max`; None for silence."""
        end = query.index(b"\0", 12) + 5
        name, kind = _name_of(query), struct.unpack("!H", query[end - 4 : end - 2])[0]
        if kind == A:
            self.asked.append(name)
        found = self.answers(name)
        if found is None:
            return None
        version = {A: 4, AAAA: 6}.get(kind)
        addresses = [
            parsed for text in found if (parsed := ipaddress.ip_address(text)).version == version
        ]
        records = b"".join(
            b"\xc0\x0c"
            + struct.pack("!HHIH", kind, 1, self.ttl, len(address.packed))
            + address.packed
            for address in addresses
        )
        flags = 0x8180 if found else 0x8183
        if size_max is not None and end + len(records) > size_max:
            flags, records, addresses = 0x8380, b"", []
        return (
            query[:2] + struct.pack("!5H", flags, 1, len(addresses), 0, 0) + query[12:end] + records
        )


@asynccontextmanager
async def a_name_server(
    answers: Answers, *, ttl: int = 0, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[NameServer]:
    server = NameServer(answers=answers, ttl=ttl)
    loop = asyncio.get_running_loop()

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # Not all transports of datagrams are of the class before Python 3.12.
            self._transport = cast("asyncio.DatagramTransport", transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            reply = server.reply(data, size_max=UDP_MAX)
            if reply is not None:
                self._transport.sendto(reply, addr)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
        reply = server.reply(query, size_max=None)
        if reply is not None:
            writer.write(struct.pack("!H", len(reply)) + reply)
            await writer.drain()
        writer.close()

    tcp = await asyncio.start_server(converse, host, port)
    server.port = tcp.sockets[0].getsockname()[1]
    udp, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=(host, server.port))
    try:
        yield server
    finally:
        udp.close()
        tcp.close()


def _name_of(query: bytes) -> str:
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    return ".".join(labels)
