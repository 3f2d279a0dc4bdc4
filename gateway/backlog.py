"""Refuses new work while too many steps wait, and says when to try again.

Every figure comes from the counters of `tenant_steps`: their cost does not grow with the steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, LiteralString

import structlog

from gateway.db import Statements
from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId
from schemas.settings import BacklogSettings

log = structlog.stdlib.get_logger(__name__)

READ_INTERVAL_SECONDS: Final = 1.0
"""Shortest time between two reads of the system's counters by one process."""

RATE_INTERVAL_SECONDS: Final = 5.0
"""Shortest time between the two readings of a rate; a shorter time makes the rate jump."""

RATE_AGE_MAX_SECONDS: Final = 120.0
"""Longest time between the two readings of a rate; after a longer pause the rate begins anew."""

TENANTS_MAX: Final = 1_000
"""Refused tenants whose rates a process remembers."""

RETRY_AFTER_MAX: Final = timedelta(minutes=10)
RETRY_AFTER_UNKNOWN: Final = timedelta(seconds=30)
"""Until a second reading gives the rate."""

OF_TENANT: Final[LiteralString] = """
    SELECT sum(waiting)::bigint AS waiting, sum(finished)::bigint AS finished
    FROM tenant_steps WHERE tenant_id = %(tenant_id)s AND name <> 'index'
"""

SYSTEM_WAITING: Final[LiteralString] = """
    SELECT coalesce(sum(waiting), 0)::bigint AS steps FROM tenant_steps WHERE waiting > 0 AND name <> 'index'
"""

SYSTEM_FINISHED: Final[LiteralString] = """
    SELECT coalesce(sum(finished), 0)::bigint AS steps FROM tenant_steps WHERE name <> 'index'
"""


class TooManyWaiting(DomainError):
    """Too many steps of the tenant wait; some of them have to end first."""

    code = ErrorCode.TOO_MANY_WAITING
    retryable = True

    def __init__(self, *, waiting: int, limit: int, retry_after: timedelta) -> None:
        self.retry_after = retry_after
        super().__init__(f"{waiting} steps of your jobs wait for workers, {limit} may wait")


class SystemBusy(DomainError):
    """Too many steps of all tenants wait."""

    code = ErrorCode.SYSTEM_BUSY
    retryable = True

    def __init__(self, *, retry_after: timedelta) -> None:
        self.retry_after = retry_after
        super().__init__("too much work is waiting; try again later")


def retry_after(excess: int, rate: float | None) -> timedelta:
    """Return when `excess` more steps will have ended: 1 second to 10 minutes.

    Args:
        excess: steps that must end before another may wait.
        rate: steps that end per second; None if it is not known yet.
    """
    if rate is None:
        return RETRY_AFTER_UNKNOWN
    longest = RETRY_AFTER_MAX.total_seconds()
    seconds = excess / rate if rate > 0 else longest
    return timedelta(seconds=math.ceil(min(max(seconds, 1), longest)))


@dataclass(frozen=True, kw_only=True)
class _Reading:
    at: float
    finished: int


class DrainRate:
    """The steps that end per second, from two readings of a counter."""

    def __init__(self) -> None:
        self._earlier: _Reading | None = None
        self._rate: float | None = None

    def read(self, finished: int, *, at: float) -> float | None:
        """Add a reading; return the rate, or None if no two readings are far enough apart.

        Args:
            finished: the steps that have ended so far.
            at: the time of the reading, in seconds of a monotonic clock.
        """
        reading = _Reading(at=at, finished=finished)
        elapsed = math.inf if self._earlier is None else at - self._earlier.at
        if self._earlier is None or elapsed > RATE_AGE_MAX_SECONDS:
            self._earlier, self._rate = reading, None
        elif elapsed >= RATE_INTERVAL_SECONDS:
            self._rate = (finished - self._earlier.finished) / elapsed
            self._earlier = reading
        return self._rate


class Backlog:
    """Checks that new work may wait; shared by all requests of a process.

    Args:
        settings: the limits.
        monotonic: a monotonic clock, in seconds.
    """

    def __init__(self, settings: BacklogSettings, *, monotonic: Callable[[], float]) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._read_at = -math.inf
        self._system_waiting = 0
        self._system_rate: float | None = None
        self._rate_of_system = DrainRate()
        self._rate_of_tenants: dict[TenantId, DrainRate] = {}

    async def check(self, statements: Statements, *, tenant_id: TenantId) -> None:
        """Check that a tenant may add a job.

        Requests that are checked at the same time may exceed a limit by their number.

        Raises:
            TooManyWaiting: too many steps of the tenant wait.
            SystemBusy: too many steps of all tenants wait.
        """
        await self.check_system(statements)
        counters = await statements.first_row(OF_TENANT, {"tenant_id": tenant_id})
        if counters is not None:
            self.check_tenant(
                tenant_id, waiting=counters.waiting or 0, finished=counters.finished or 0
            )

    def check_tenant(self, tenant_id: TenantId, *, waiting: int, finished: int) -> None:
        """Check the counters of a tenant.

        Raises:
            TooManyWaiting: too many steps of the tenant wait.
        """
        limit = self._settings.tenant_waiting_max
        if waiting >= limit:
            rate = self._rate_of_tenant(tenant_id).read(finished, at=self._monotonic())
            raise TooManyWaiting(
                waiting=waiting,
                limit=limit,
                retry_after=retry_after(waiting - limit + 1, rate),
            )

    async def check_system(self, statements: Statements) -> None:
        """Check the counters of all tenants, which are at most a moment old.

        Raises:
            SystemBusy: too many steps of all tenants wait.
        """
        now, limit = self._monotonic(), self._settings.system_waiting_max
        if now - self._read_at >= READ_INTERVAL_SECONDS:
            # Set before the read: until it ends, other requests use the earlier figure.
            self._read_at = now
            await self._read_system(statements, at=now, limit=limit)
        if self._system_waiting >= limit:
            raise SystemBusy(
                retry_after=retry_after(self._system_waiting - limit + 1, self._system_rate)
            )

    async def _read_system(self, statements: Statements, *, at: float, limit: int) -> None:
        waiting = await statements.first_row(SYSTEM_WAITING, {})
        self._system_waiting = waiting.steps if waiting else 0
        if self._system_waiting >= limit:
            # Of every tenant: the sum over those that wait would jump when a tenant stops waiting.
            finished = await statements.first_row(SYSTEM_FINISHED, {})
            self._system_rate = self._rate_of_system.read(finished.steps if finished else 0, at=at)
            log.warning("backlog.full", waiting=self._system_waiting, limit=limit)

    def _rate_of_tenant(self, tenant_id: TenantId) -> DrainRate:
        rate = self._rate_of_tenants.pop(tenant_id, None) or DrainRate()
        self._rate_of_tenants[tenant_id] = rate
        if len(self._rate_of_tenants) > TENANTS_MAX:
            # The tenant whose last refusal is the longest ago.
            del self._rate_of_tenants[next(iter(self._rate_of_tenants))]
        return rate
