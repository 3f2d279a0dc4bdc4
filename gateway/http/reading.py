"""Reads from a connection in portions of a chosen size."""

import asyncio
from typing import Any, Final, Self

from gateway.http.protocol import READ_BYTES_MAX, HardenedProtocol

# Of all connections: a read is processed before the next read begins.
_received: Final = memoryview(bytearray(READ_BYTES_MAX))


class BoundedReads(asyncio.BufferedProtocol):
    """Passes what it reads to the protocol of the connection, which chooses the size of each read.

    Without it, the event loop reads up to 250 KiB at once from every connection, also from those
    whose bodies nobody has asked for.
    """

    __slots__ = ("_protocol",)

    def __init__(self, protocol: HardenedProtocol) -> None:
        self._protocol = protocol

    @classmethod
    def of(cls, **options: Any) -> Self:  # noqa: ANN401  # those of the protocol
        """Return the reader of a new connection, whose protocol gets these options."""
        return cls(HardenedProtocol(**options))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._protocol.connection_made(transport)  # type: ignore[arg-type]  # as the server's own

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the loop's own signature
        return _received[: self._protocol.read_bytes_max]

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(_received[:nbytes]))

    def eof_received(self) -> bool:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
