"""Look-ups of host names that do not wait for each other.

`getaddrinfo` needs a thread for as long as a name server is silent: fifty names of silent servers
take fifty threads. c-ares waits for any number of answers in one thread.

Names are absolute: the search list of ``resolv.conf`` is not used. A tenant chooses the name, and
in Kubernetes the search list would try every name inside the cluster first. ``/etc/hosts`` is used,
because it is the operator's.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import aiodns
import pycares

from notifier.http.errors import NameUnresolved

LOOKUP_MAX: Final = 5.0
"""Seconds of one look-up; an attempt needs the rest of its time for the receiver."""

TTL_MAX: Final = 30.0
"""Seconds that addresses are kept, at most. A receiver that moves is found again soon, whatever
the time to live of its records."""

FAILURE_TTL: Final = 3.0
"""Seconds that a failure is kept, so that a batch of deliveries to one name asks once."""

NAMES_MAX: Final = 10_000
"""Names kept; bounds memory, with the addresses of each."""

KEPT_MAX: Final = 32
"""Addresses of a name that is kept; honest names have fewer."""

SHARE_MAX: Final = 16
"""Look-ups of one share at the same time; its others wait, and nobody else does."""

_QUERY_TIMEOUT: Final = 2.0
_TRIES: Final = 2
_NO_SORT: Final = 1 << 7
"""c-ares' ``ARES_AI_NOSORT``: sorting connects a socket for each address, and a name may have
thousands."""


class Resolver(Protocol):
    """Returns the addresses of a host; raises `NameUnresolved` without one."""

    async def __call__(self, host: str, *, share: str | None) -> Sequence[str]: ...


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """The addresses of a name.

    Attributes:
        ttl: seconds that they may be kept.
    """

    addresses: Sequence[str]
    ttl: float


class Lookup(Protocol):
    """Asks name servers once."""

    async def __call__(self, host: str) -> Addresses: ...


@asynccontextmanager
async def open_lookup(*, servers: Sequence[str] | None = None) -> AsyncIterator[Lookup]:
    """Yield a look-up by c-ares; it raises `NameUnresolved`.

    Args:
        servers: name servers, ``address:port``; by default those of ``resolv.conf``.
    """
    resolver = aiodns.DNSResolver(
        nameservers=servers,
        timeout=_QUERY_TIMEOUT,
        tries=_TRIES,
        flags=pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_EDNS,
    )

    async def look_up(host: str) -> Addresses:
        try:
            found = await resolver.getaddrinfo(
                host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM, flags=_NO_SORT
            )
        except aiodns.error.DNSError as error:
            raise NameUnresolved(str(error.args[-1])) from error
        return Addresses(
            addresses=[_text(node.addr[0]) for node in found.nodes],
            ttl=min((node.ttl for node in found.nodes), default=0),
        )

    try:
        yield look_up
    finally:
        await resolver.close()


def _text(address: str | bytes) -> str:
    return address.decode("ascii") if isinstance(address, bytes) else address


@dataclass(kw_only=True)
class _Kept:
    result: Sequence[str] | NameUnresolved
    until: float


class CachingResolver:
    """Asks once for a name at a time, keeps the answer for a short time, and limits each share."""

    def __init__(self, look_up: Lookup) -> None:
        self._look_up = look_up
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Sequence[str]]] = {}
        self._shares: dict[str, _Share] = {}

    async def __call__(self, host: str, *, share: str | None) -> Sequence[str]:
        """Return the addresses of a host.

        Args:
            host: a name.
            share: who asks, such as a tenant; None asks without a bound.

        Raises:
            NameUnresolved: the name has no address, or no name server answers in time.
        """
        kept = self._kept.get(host)
        if kept is not None and kept.until > asyncio.get_running_loop().time():
            if isinstance(kept.result, NameUnresolved):
                raise kept.result
            return kept.result
        try:
            async with asyncio.timeout(LOOKUP_MAX), self._turn_of(share):
                # Others wait for the same answer: only this wait ends when it is cancelled.
                return await asyncio.shield(self._ask(host))
        except TimeoutError:
            raise NameUnresolved(f"no answer within {LOOKUP_MAX:g} s") from None

    def _ask(self, host: str) -> "asyncio.Task[Sequence[str]]":
        task = self._asking.get(host)
        if task is None:
            task = asyncio.create_task(self._ask_once(host), name=f"look up {host}")
            self._asking[host] = task
            task.add_done_callback(lambda done: self._asked(host, done))
        return task

    async def _ask_once(self, host: str) -> Sequence[str]:
        try:
            async with asyncio.timeout(LOOKUP_MAX):
                found = await self._look_up(host)
            if not found.addresses:
                raise NameUnresolved("no addresses")  # noqa: TRY301  # kept like any other failure
        except TimeoutError:
            failure = NameUnresolved(f"no answer within {LOOKUP_MAX:g} s")
            self._keep(host, failure, ttl=FAILURE_TTL)
            raise failure from None
        except NameUnresolved as failure:
            self._keep(host, failure, ttl=FAILURE_TTL)
            raise
        if len(found.addresses) <= KEPT_MAX:
            self._keep(host, found.addresses, ttl=min(found.ttl, TTL_MAX))
        return found.addresses

    def _asked(self, host: str, task: "asyncio.Task[Sequence[str]]") -> None:
        del self._asking[host]
        if not task.cancelled():
            # All that waited may have ended; asyncio logs an exception that nobody retrieved.
            task.exception()

    def _keep(self, host: str, result: Sequence[str] | NameUnresolved, *, ttl: float) -> None:
        if ttl <= 0:
            return
        now = asyncio.get_running_loop().time()
        self._kept[host] = _Kept(result=result, until=now + ttl)
        self._kept.move_to_end(host)
        if len(self._kept) > NAMES_MAX:
            self._kept.popitem(last=False)

    @asynccontextmanager
    async def _turn_of(self, name: str | None) -> AsyncIterator[None]:
        if name is None:
            yield
            return
        share = self._shares.get(name)
        if share is None:
            share = self._shares[name] = _Share()
        share.users += 1
        try:
            async with share.turns:
                yield
        finally:
            share.users -= 1
            if not share.users:
                del self._shares[name]


class _Share:
    def __init__(self) -> None:
        self.users = 0
        self.turns = asyncio.Semaphore(SHARE_MAX)
