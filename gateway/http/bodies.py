"""A bound on the request bodies that arrive at once, and on those that are collected in memory.

Every body costs memory and file descriptors until it has arrived. Without the bound, the clients
of the process would decide how much.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId
from schemas.settings import BodySettings

RETRY_AFTER: Final = timedelta(seconds=2)


class TooManyBodies(DomainError):
    """Too many bodies of the tenant arrive at once."""

    code = ErrorCode.TOO_MANY_BODIES
    retryable = True
    retry_after = RETRY_AFTER

    def __init__(self, limit: str) -> None:
        super().__init__(f"{limit} of yours arrive already; send this one again later")


class BodiesBusy(DomainError):
    """Too many bodies of all tenants arrive at once."""

    code = ErrorCode.SYSTEM_BUSY
    retryable = True
    retry_after = RETRY_AFTER

    def __init__(self) -> None:
        super().__init__("too many bodies arrive at the moment; send this one again later")


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """How many bodies may arrive at once.

    Attributes:
        count: of all tenants.
        count_per_tenant: of one tenant.
        kept_bytes: of the bodies of all tenants that are collected in memory.
        kept_bytes_per_tenant: of those of one tenant.
    """

    count: int
    count_per_tenant: int
    kept_bytes: int
    kept_bytes_per_tenant: int

    @classmethod
    def from_settings(cls, settings: BodySettings) -> Self:
        return cls(
            count=settings.bodies_max,
            count_per_tenant=settings.tenant_bodies_max,
            kept_bytes=settings.body_memory_max,
            kept_bytes_per_tenant=int(settings.body_memory_max * settings.body_memory_share),
        )


@dataclass(kw_only=True)
class _Tally:
    count: int = 0
    kept_bytes: int = 0


class Bodies:
    """Counts the bodies that arrive; shared by all requests of a process."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._all = _Tally()
        self._tenants: dict[TenantId, _Tally] = {}

    def __len__(self) -> int:
        return self._all.count

    @contextmanager
    def arriving(self, tenant_id: TenantId) -> Iterator["ArrivingBody"]:
        """Count a body until the block ends.

        Raises:
            TooManyBodies: the tenant has reached its limit.
            BodiesBusy: all tenants together have reached the limit.
        """
        tally = self._tenants.setdefault(tenant_id, _Tally())
        if tally.count >= self._limits.count_per_tenant:
            raise TooManyBodies(f"{self._limits.count_per_tenant} bodies")
        if self._all.count >= self._limits.count:
            self._forget_unused(tenant_id, tally)
            raise BodiesBusy
        body = ArrivingBody(self._limits, of_all=self._all, of_tenant=tally)
        for each in (self._all, tally):
            each.count += 1
        try:
            yield body
        finally:
            for each in (self._all, tally):
                each.count -= 1
                each.kept_bytes -= body.kept_bytes
            self._forget_unused(tenant_id, tally)

    def _forget_unused(self, tenant_id: TenantId, tally: _Tally) -> None:
        if tally.count == 0:
            self._tenants.pop(tenant_id, None)


class ArrivingBody:
    """A body that is counted, and the bytes of it that are in memory."""

    def __init__(self, limits: BodyLimits, *, of_all: _Tally, of_tenant: _Tally) -> None:
        self._limits = limits
        self._of_all = of_all
        self._of_tenant = of_tenant
        self.kept_bytes = 0

    def keep(self, count: int) -> None:
        """Count bytes that stay in memory until the body is complete.

        Raises:
            TooManyBodies: the tenant has reached its limit.
            BodiesBusy: all tenants together have reached the limit.
        """
        if self._of_tenant.kept_bytes + count > self._limits.kept_bytes_per_tenant:
            raise TooManyBodies(f"JSON bodies with {self._limits.kept_bytes_per_tenant} bytes")
        if self._of_all.kept_bytes + count > self._limits.kept_bytes:
            raise BodiesBusy
        for each in (self._of_all, self._of_tenant):
            each.kept_bytes += count
        self.kept_bytes += count
