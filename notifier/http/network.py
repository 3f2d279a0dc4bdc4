"""Opens connections to checked addresses only.

The check happens where the connection is opened, so that a name cannot resolve to another address
in between. A proxy gets the checked address too, not the name.
"""

import asyncio
import base64
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Final, Protocol

from notifier.http.connection import Connection, Origin, ReadBuffer
from notifier.http.dns import Resolver
from notifier.http.errors import (
    AnswerRefused,
    ConnectionBroken,
    NameUnresolved,
    ReceiverUnreachable,
    TlsFailed,
)
from notifier.http.pool import Pool
from notifier.http.trace import Trace
from notifier.http.work import Work
from schemas.policy import webhook_urls
from schemas.policy.webhook_urls import Address, Network

CONNECT_MAX: Final = 5.0
"""Seconds per address: an address that drops packets must leave time for the next address."""

TRIED_MAX: Final = 4

_PROXY_BODY_MAX: Final = 1024


class ConnectTcp(Protocol):
    """Opens a TCP connection to an address; raises `OSError`."""

    async def __call__(
        self, protocol: Callable[[], Connection], *, address: str, port: int
    ) -> Connection: ...


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """An HTTP proxy for outgoing connections.

    Attributes:
        authorization: the value of ``Proxy-Authorization``.
    """

    host: str
    port: int
    authorization: str | None = None

    @staticmethod
    def basic(credentials: str) -> str:
        """Return the ``Proxy-Authorization`` for ``user:password``."""
        return f"Basic {base64.b64encode(credentials.encode()).decode()}"


async def connect_tcp(protocol: Callable[[], Connection], *, address: str, port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(
        protocol, host=address, port=port
    )
    return connection


class CheckedNetwork:
    """Resolves a name, checks every address, and connects to a checked address."""

    def __init__(
        self,
        *,
        pool: Pool,
        resolve: Resolver,
        allowed_networks: Sequence[Network],
        ssl_context: ssl.SSLContext,
        proxy: Proxy | None = None,
        connect: ConnectTcp = connect_tcp,
    ) -> None:
        self._pool = pool
        self._resolve = resolve
        self._allowed_networks = allowed_networks
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._connect = connect
        self._work = Work()
        self._buffer = ReadBuffer()

    async def open(self, origin: Origin, trace: Trace) -> Connection:
        """Open a connection to the first address that accepts one.

        Raises:
            webhook_urls.TargetRefused: an address is not public.
            NameUnresolved: the name has no address.
            ReceiverUnreachable: none of the first `TRIED_MAX` addresses accepts.
            TlsFailed: the handshake failed.
        """
        addresses = _both_families(await self._checked_addresses(origin, trace))
        trace.phase = "connecting"
        reason = ""
        began = asyncio.get_running_loop().time()
        for address in addresses[:TRIED_MAX]:
            try:
                connection = await self._open_tcp(origin, str(address))
            except TimeoutError:
                reason = f"no answer within {CONNECT_MAX:g} s"
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else str(error)
            except (ConnectionBroken, AnswerRefused) as error:
                reason = f"the proxy failed: {error}"
            else:
                trace.connect = asyncio.get_running_loop().time() - began
                trace.remote_address = str(address)
                break
        else:
            raise ReceiverUnreachable(reason)
        if origin.scheme == "https":
            await self._encrypt(connection, origin, trace)
        return connection

    async def _checked_addresses(self, origin: Origin, trace: Trace) -> list[Address]:
        addresses: Sequence[str]
        if webhook_urls.address_of(origin.host) is not None:
            addresses = [origin.host]
        else:
            trace.phase = "looking up the name"
            began = asyncio.get_running_loop().time()
            try:
                addresses = await self._resolve(origin.host, share=trace.share)
            finally:
                trace.dns = asyncio.get_running_loop().time() - began
            if not addresses:
                raise NameUnresolved("no addresses")
        return webhook_urls.check_addresses(addresses, allowed_networks=self._allowed_networks)

    async def _open_tcp(self, origin: Origin, address: str) -> Connection:
        def protocol() -> Connection:
            return Connection(
                origin=origin,
                address=address,
                owner=self._pool,
                work=self._work,
                buffer=self._buffer,
            )

        async with asyncio.timeout(CONNECT_MAX):
            if self._proxy is None:
                connection = await self._connect(protocol, address=address, port=origin.port)
                self._pool.add(connection)
                return connection
            connection = await self._connect(
                protocol, address=self._proxy.host, port=self._proxy.port
            )
            self._pool.add(connection)
            try:
                await _open_tunnel(connection, self._proxy, address=address, port=origin.port)
            except BaseException:
                connection.abort()
                raise
            return connection

    async def _encrypt(self, connection: Connection, origin: Origin, trace: Trace) -> None:
        trace.phase = "in the TLS handshake"
        began = asyncio.get_running_loop().time()
        try:
            await connection.start_tls(self._ssl_context, server_name=origin.host)
        except ssl.SSLError as error:
            connection.abort()
            raise TlsFailed(str(error)) from error
        except OSError as error:
            connection.abort()
            raise TlsFailed("the connection broke") from error
        except BaseException:
            # asyncio closes in order, which waits for a receiver that is silent.
            connection.abort()
            raise
        trace.tls = asyncio.get_running_loop().time() - began


async def _open_tunnel(connection: Connection, proxy: Proxy, *, address: str, port: int) -> None:
    """Ask a proxy for a tunnel to a checked address.

    Raises:
        AnswerRefused: the proxy refuses.
    """
    target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    request = "\r\n".join([*lines, "", ""]).encode("ascii")
    answer = await connection.request(request, body_max=_PROXY_BODY_MAX, is_tunnel=True)
    if answer.status is None or answer.status // 100 != 2 or not answer.reusable:  # noqa: PLR2004  # 2xx
        raise AnswerRefused(f"it answered {answer.status}")


def _both_families(addresses: Sequence[Address]) -> list[Address]:
    """Alternate between IPv4 and IPv6, so that a host without one of them reaches the other."""
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    pairs = chain.from_iterable(zip_longest(first, second))
    return [address for address in pairs if address is not None]
