"""Wakes the requests that wait for new events of their tenant.

The process that assigns positions notifies a channel with the tenant. A request reads its own page
when it is woken. A notification can be lost while its connection is down; therefore every request is
woken after a reconnect, and reads at a long interval whatever happens.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from schemas.ids import TenantId

READ_INTERVAL: Final = timedelta(seconds=15)
"""Longest delay of an event whose notification was lost without an error."""


class FeedWait:
    """The wait of one request for events of its tenant; see `FeedWatch.waiting`."""

    __slots__ = ("_is_ended", "_woken")

    def __init__(self) -> None:
        self._is_ended = False
        self._woken = asyncio.Event()

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    async def news(self, *, within: timedelta) -> bool:
        """Return True once there may be new events; False after the time, and if the wait is ended.

        News since the last call count: nothing is missed between a call and the next one.
        """
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self._woken.wait()
        except TimeoutError:
            return False
        if self._is_ended:
            return False
        self._woken.clear()
        return True

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        """End the wait: the client has disconnected, or the process stops."""
        self._is_ended = True
        self._woken.set()


class FeedWatch:
    """The requests that wait for events, by tenant."""

    def __init__(self) -> None:
        self._waits: dict[str, set[FeedWait]] = {}
        self._is_draining = False

    @contextmanager
    def waiting(self, tenant_id: TenantId) -> Iterator[FeedWait]:
        """Register a request, before it reads: it is then woken for everything that it has not read."""
        key = str(tenant_id)
        wait = FeedWait()
        if self._is_draining:
            wait.end()
        waits = self._waits.setdefault(key, set())
        waits.add(wait)
        try:
            yield wait
        finally:
            waits.discard(wait)
            if not waits and self._waits.get(key) is waits:
                del self._waits[key]

    def notify(self, tenant_id: str | None) -> None:
        """Note that a tenant has new events, or that notifications may have been lost (None)."""
        chosen = self._waits.values() if tenant_id is None else (self._waits.get(tenant_id, ()),)
        for waits in chosen:
            for wait in waits:
                wait.wake()

    def drain(self) -> None:
        """End every wait, and those that begin later: the process is about to stop."""
        self._is_draining = True
        for waits in self._waits.values():
            for wait in waits:
                wait.end()
