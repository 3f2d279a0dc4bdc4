"""TCP connections to checked addresses only.

The check happens where the connection is opened, so that a name cannot resolve
to another address in between.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any, Final, Protocol

import httpcore

from schemas.policy import webhook_urls

CONNECT_TIMEOUT: Final = timedelta(seconds=5)
"""Per address: an address that drops packets must leave time for the next address."""

ADDRESSES_MAX: Final = 4


class Resolver(Protocol):
    """Returns the addresses of a host; raises `OSError` or `UnicodeError` without one."""

    async def __call__(self, host: str, port: int) -> Sequence[str]: ...


class NameUnresolved(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(f"the host name does not resolve: {reason}")


class ReceiverUnreachable(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(f"no connection: {reason}")


class SystemResolver:
    """Resolves names with the operating system, in the threads that the caller passes.

    The event loop's own threads are few: all of them would wait for the name
    servers of receivers that are down, and block the look-ups of healthy receivers.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads

    async def __call__(self, host: str, port: int) -> list[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(sockaddr[0]) for *_, sockaddr in found]


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name, checks every address, and connects to a checked address."""

    def __init__(
        self, *, resolve: Resolver, allow_loopback: bool, network: httpcore.AsyncNetworkBackend
    ) -> None:
        self._resolve = resolve
        self._allow_loopback = allow_loopback
        self._network = network

    async def connect_tcp(  # noqa: PLR0917  # httpcore's signature
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109  # httpcore's signature; each address has its own
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that accepts a connection.

        Raises:
            webhook_urls.TargetRefused: an address is not public.
            NameUnresolved: the name has no address.
            ReceiverUnreachable: none of the first `ADDRESSES_MAX` addresses accepts.
        """
        addresses = webhook_urls.check_addresses(
            await self._addresses(host, port), allow_loopback=self._allow_loopback
        )
        reason = ""
        for address in addresses[:ADDRESSES_MAX]:
            try:
                stream = await self._network.connect_tcp(
                    str(address),
                    port,
                    timeout=CONNECT_TIMEOUT.total_seconds(),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                reason = _reason(error)
            else:
                return _CheckedStream(stream, remote=(str(address), port))
        raise ReceiverUnreachable(reason)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        if webhook_urls.address_of(host) is not None:
            return [host]
        try:
            addresses = await self._resolve(host, port)
        except socket.gaierror as error:
            raise NameUnresolved(error.strerror or "no reason given") from error
        except (OSError, UnicodeError) as error:
            raise NameUnresolved(type(error).__name__) from error
        if not addresses:
            raise NameUnresolved("no addresses")
        return addresses


class _CheckedStream(httpcore.AsyncNetworkStream):
    """A connection that keeps its checked address and the bytes of its last read."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, *, remote: tuple[str, int]) -> None:
        self._stream = stream
        self._remote = remote
        self._last_read = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # httpcore's signature
        self._last_read = await self._stream.read(max_bytes, timeout)
        return self._last_read

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # httpcore's signature
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        try:
            encrypted = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            # httpcore leaks the connection when the deadline cancels a handshake.
            await self._stream.aclose()
            raise
        return _CheckedStream(encrypted, remote=self._remote)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  # httpcore's signature
        match info:
            case "server_addr":
                # The operating system does not return the peer of a connection that was reset.
                return self._remote
            case "last_read":
                return self._last_read
            case _:
                return self._stream.get_extra_info(info)


def _reason(error: Exception) -> str:
    """Return the operating system's message beneath the exceptions of the libraries."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__
    if isinstance(error, httpcore.ConnectTimeout):
        return f"no answer within {CONNECT_TIMEOUT.total_seconds():g} s"
    return str(error)
