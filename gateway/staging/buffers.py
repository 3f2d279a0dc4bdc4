"""A bounded number of buffers for the bodies of requests, shared fairly between tenants.

Without the bound, the memory of the process would be what its clients hold open. A buffer belongs
to a body only while bytes arrive: the body that has been silent longest gives its buffer up.
"""

import asyncio
import mmap
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol, Self

from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId
from schemas.settings import BodySettings

BUFFER_BYTES: Final = 512 * 1024
"""Large enough that passing a buffer to a thread is cheap compared with the thread's work."""

SPARE_MAX: Final = 32
"""Buffers kept for later bodies; after a peak all others go back to the system."""

IDLE_CHECK: Final = timedelta(milliseconds=500)
"""A body that receives nothing for one to two of these intervals gives its buffer up."""

RETRY_AFTER: Final = timedelta(seconds=2)


class BuffersBusy(DomainError):
    """Other bodies use all buffers, or all of the tenant's share, for longer than a body waits."""

    code = ErrorCode.SYSTEM_BUSY
    retryable = True
    retry_after = RETRY_AFTER

    def __init__(self) -> None:
        super().__init__("too many bodies arrive at the moment; send this one again later")


class FillingBody(Protocol):
    """A body that fills a buffer."""

    def give_way(self) -> None:
        """Give the buffer back: at once if it is empty, otherwise once its bytes are processed."""


@dataclass(frozen=True, kw_only=True)
class BufferLimits:
    """How many buffers exist, and how long a body waits for one.

    Attributes:
        count: of all bodies of the process.
        per_tenant: of the bodies of one tenant.
        wait_max: longest wait for a buffer.
    """

    count: int
    per_tenant: int
    wait_max: timedelta

    @classmethod
    def from_settings(cls, settings: BodySettings) -> Self:
        count = settings.body_memory_max // BUFFER_BYTES
        return cls(
            count=count,
            per_tenant=max(1, int(count * settings.body_memory_share)),
            wait_max=settings.body_memory_wait,
        )


@dataclass(kw_only=True)
class _Account:
    """The buffers of a tenant.

    Attributes:
        lent: buffers that its bodies hold.
        filling: bodies that fill a buffer, with the check before which their last bytes arrived;
            the body that has been silent longest is first.
        waiting: bodies that wait for a buffer, in the order of their arrival.
    """

    lent: int = 0
    filling: OrderedDict[FillingBody, int] = field(default_factory=OrderedDict)
    waiting: deque[asyncio.Future[memoryview]] = field(default_factory=deque)


class Buffers:
    """Lends buffers of one size.

    The kernel clears every page of a new buffer, which costs more than filling the buffer. With
    small chunks, new buffers took a sixth of the gateway's processor time. Each buffer is a mapping
    of its own, because memory that the allocator reuses for other objects would never go back to
    the system.
    """

    def __init__(
        self,
        limits: BufferLimits,
        *,
        size_bytes: int = BUFFER_BYTES,
        spare_max: int = SPARE_MAX,
        idle_check: timedelta = IDLE_CHECK,
    ) -> None:
        self._limits = limits
        self._idle_check = idle_check
        self.size_bytes = size_bytes
        self._spare_max = spare_max
        self._spare: list[memoryview] = []
        self._lent = 0
        self._filling = 0
        self._accounts: dict[TenantId, _Account] = {}
        self._queues: dict[TenantId, _Account] = {}
        self._waiting_bytes = 0
        self._checks = 0
        self._check: asyncio.TimerHandle | None = None

    @property
    def lent(self) -> int:
        """Buffers that bodies hold."""
        return self._lent

    async def borrow(self, tenant_id: TenantId, *, waiting_bytes: int = 0) -> memoryview:
        """Return a buffer with arbitrary content, after a wait if all are lent.

        Bodies that fill buffers give way to those that wait. The tenant with the fewest buffers
        gets the next one.

        Args:
            tenant_id: the tenant of the body.
            waiting_bytes: bytes of the body that are in memory during the wait.

        Raises:
            BuffersBusy: no buffer was free in time, or too many bytes wait already.
        """
        account = self._accounts.setdefault(tenant_id, _Account())
        # A body that arrives later must not overtake those that wait.
        if not account.waiting and self._has_room_for(account):
            return self._lend(account)
        return await self._wait(tenant_id, account, waiting_bytes=waiting_bytes)

    def give_back(self, buffer: memoryview, tenant_id: TenantId) -> None:
        """Take back a buffer that no thread reads or writes any more."""
        self._give_up(buffer, tenant_id)
        self._serve_waiting()

    def fills(self, body: FillingBody, tenant_id: TenantId) -> None:
        """Note that bytes of a body arrived in its buffer."""
        filling = self._accounts[tenant_id].filling
        if body not in filling:
            self._filling += 1
        filling[body] = self._checks
        filling.move_to_end(body)
        if self._check is None:
            self._check_later()

    def fills_no_more(self, body: FillingBody, tenant_id: TenantId) -> None:
        """Note that the buffer of a body is full or complete: the body cannot give way any more."""
        account = self._accounts.get(tenant_id)
        if account is not None and account.filling.pop(body, None) is not None:
            self._filling -= 1

    def _has_room_for(self, account: _Account) -> bool:
        return self._lent < self._limits.count and account.lent < self._limits.per_tenant

    def _lend(self, account: _Account) -> memoryview:
        account.lent += 1
        self._lent += 1
        return self._spare.pop() if self._spare else _mapped(self.size_bytes)

    def _give_up(self, buffer: memoryview, tenant_id: TenantId) -> None:
        account = self._accounts[tenant_id]
        account.lent -= 1
        self._lent -= 1
        if len(self._spare) < self._spare_max:
            self._spare.append(buffer)
        self._forget_unused(tenant_id, account)

    def _forget_unused(self, tenant_id: TenantId, account: _Account) -> None:
        is_used = account.lent or account.waiting
        if not is_used and self._accounts.get(tenant_id) is account:
            del self._accounts[tenant_id]

    async def _wait(
        self, tenant_id: TenantId, account: _Account, *, waiting_bytes: int
    ) -> memoryview:
        with self._waiting(waiting_bytes):
            lent: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
            account.waiting.append(lent)
            self._queues[tenant_id] = account
            self._make_room(account)
            try:
                async with asyncio.timeout(self._limits.wait_max.total_seconds()):
                    return await lent
            except BaseException as error:
                self._leave_queue(tenant_id, account, lent)
                if isinstance(error, TimeoutError):
                    raise BuffersBusy from error
                raise

    @contextmanager
    def _waiting(self, size_bytes: int) -> Iterator[None]:
        """Count the bytes of a body that waits: at most half of what the buffers hold."""
        if self._waiting_bytes + size_bytes > self._limits.count * self.size_bytes // 2:
            raise BuffersBusy
        self._waiting_bytes += size_bytes
        try:
            yield
        finally:
            self._waiting_bytes -= size_bytes

    def _leave_queue(
        self, tenant_id: TenantId, account: _Account, lent: asyncio.Future[memoryview]
    ) -> None:
        if lent.done() and not lent.cancelled():
            # The buffer was lent in the moment in which the wait ended.
            self.give_back(lent.result(), tenant_id)
            return
        with suppress(ValueError):  # a cancelled wait may have been taken out of the queue already
            account.waiting.remove(lent)
        if not account.waiting:
            self._queues.pop(tenant_id, None)
        self._forget_unused(tenant_id, account)

    def _make_room(self, account: _Account) -> None:
        """Let a body give way, unless a buffer that is being processed comes back anyway."""
        if account.lent >= self._limits.per_tenant:
            candidate, waiting = account, len(account.waiting)
            returning = account.lent - len(account.filling)
        else:
            candidate = max(self._accounts.values(), key=lambda each: len(each.filling))
            waiting = sum(len(each.waiting) for each in self._queues.values())
            returning = self._lent - self._filling
        if returning < waiting and candidate.filling:
            next(iter(candidate.filling)).give_way()

    def _serve_waiting(self) -> None:
        while self._queues:
            tenant_id, account = min(self._queues.items(), key=lambda item: item[1].lent)
            if not self._has_room_for(account):
                return
            lent = account.waiting.popleft()
            if not account.waiting:
                del self._queues[tenant_id]
            if lent.done():
                continue
            lent.set_result(self._lend(account))

    def _check_later(self) -> None:
        self._check = asyncio.get_running_loop().call_later(
            self._idle_check.total_seconds(), self._reclaim_idle
        )

    def _reclaim_idle(self) -> None:
        self._check = None
        self._checks += 1
        for account in list(self._accounts.values()):
            while account.filling:
                body, last_filled = next(iter(account.filling.items()))
                if last_filled >= self._checks - 1:
                    break
                body.give_way()
        if self._filling:
            self._check_later()


def _mapped(size_bytes: int) -> memoryview:
    return memoryview(mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
