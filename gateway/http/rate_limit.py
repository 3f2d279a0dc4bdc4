"""Limits the requests of each tenant with token buckets in the memory of the process.

The fields of the answers: draft-ietf-httpapi-ratelimit-headers-10.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

from litestar.datastructures import ResponseHeader
from litestar.types import Message, Scope

from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId
from schemas.settings import RequestRateSettings

POLICY: Final = '"tenant"'

NANOSECONDS: Final = 1_000_000_000

DESCRIBED_FIELDS: Final = (
    ResponseHeader(
        name="RateLimit-Policy",
        documentation_only=True,
        value='"tenant";q=2000;w=4',
        description="the tenant's policy: `q` requests at once, as many again in `w` seconds",
    ),
    ResponseHeader(
        name="RateLimit",
        documentation_only=True,
        value='"tenant";r=1999;t=1',
        description="`r` requests remain; one more is available in `t` seconds",
    ),
)
"""The fields of the answers of authenticated requests, for the API description."""

_STATE_KEY: Final = "rate_limit_fields"


class RateLimited(DomainError):
    """The tenant sends more requests than its rate allows."""

    code = ErrorCode.RATE_LIMITED
    retryable = True

    def __init__(self, detail: str, *, retry_after: timedelta) -> None:
        self.retry_after = retry_after
        super().__init__(detail)


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """A token bucket: `burst` requests at once, one more in each interval.

    Integers make the count exact: sums of floats would refuse a request that fits.
    """

    burst: int
    interval_ns: int

    @classmethod
    def from_settings(cls, settings: RequestRateSettings) -> Self:
        return cls(
            burst=settings.request_burst,
            interval_ns=math.ceil(NANOSECONDS / settings.request_rate),
        )

    @property
    def refill_ns(self) -> int:
        """The time in which an empty bucket fills."""
        return self.burst * self.interval_ns

    @property
    def policy(self) -> str:
        """The field `RateLimit-Policy`."""
        return f"{POLICY};q={self.burst};w={_seconds(self.refill_ns)}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a request is admitted, and the state of the bucket afterwards.

    Attributes:
        is_admitted: the bucket had room for the request.
        full_at_ns: when the bucket is full again, if no more requests come.
        remaining: requests that would be admitted now.
        next_in_s: seconds until one more request would be admitted, rounded up.
    """

    is_admitted: bool
    full_at_ns: int
    remaining: int
    next_in_s: int


def decide(full_at_ns: int, *, now_ns: int, limit: RateLimit) -> Decision:
    """Decide on a request of a tenant whose bucket is full at `full_at_ns`."""
    # The time that the bucket needs to fill stands for the tokens that it lacks.
    lacking_ns = max(full_at_ns - now_ns, 0)
    is_admitted = lacking_ns + limit.interval_ns <= limit.refill_ns
    if is_admitted:
        lacking_ns += limit.interval_ns
    remaining, part_ns = divmod(limit.refill_ns - lacking_ns, limit.interval_ns)
    return Decision(
        is_admitted=is_admitted,
        full_at_ns=now_ns + lacking_ns,
        remaining=remaining,
        next_in_s=_seconds(limit.interval_ns - part_ns),
    )


class TenantRates:
    """The buckets of all tenants that sent requests a short time ago.

    A full bucket equals no bucket and is forgotten: memory holds only tenants that sent a request
    within the time in which a bucket fills.

    Args:
        limit: of each tenant.
        monotonic_ns: a clock in nanoseconds that is never set back.
    """

    def __init__(self, limit: RateLimit, *, monotonic_ns: Callable[[], int]) -> None:
        self._limit = limit
        self._monotonic_ns = monotonic_ns
        self._policy = limit.policy.encode()
        self._full_at_ns: OrderedDict[TenantId, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_ns)

    def admit(self, tenant_id: TenantId, scope: Scope) -> None:
        """Count a request, and note the fields that `add_fields` adds to its answer.

        Raises:
            RateLimited: the bucket of the tenant is empty.
        """
        decision = self.take(tenant_id)
        current = f"{POLICY};r={decision.remaining};t={decision.next_in_s}"
        scope["state"][_STATE_KEY] = (
            (b"ratelimit-policy", self._policy),
            (b"ratelimit", current.encode()),
        )
        if not decision.is_admitted:
            raise RateLimited(
                f"more than {self._limit.burst} requests at once, or too many in a row",
                retry_after=timedelta(seconds=decision.next_in_s),
            )

    def take(self, tenant_id: TenantId) -> Decision:
        """Decide on a request, and remember the state of the bucket."""
        now_ns = self._monotonic_ns()
        decision = decide(self._full_at_ns.get(tenant_id, 0), now_ns=now_ns, limit=self._limit)
        self._full_at_ns[tenant_id] = decision.full_at_ns
        self._full_at_ns.move_to_end(tenant_id)
        self._forget_full(now_ns)
        return decision

    def _forget_full(self, now_ns: int) -> None:
        # In the order of the last request: the cost of one request stays constant on average.
        while self._full_at_ns:
            tenant_id = next(iter(self._full_at_ns))
            if self._full_at_ns[tenant_id] > now_ns:
                break
            del self._full_at_ns[tenant_id]


async def add_fields(message: Message, scope: Scope) -> None:
    """Add the rate-limit fields to the answer of an authenticated request."""
    if message["type"] == "http.response.start":
        fields = scope["state"].get(_STATE_KEY, ())
        message["headers"] = [*message["headers"], *fields]


def _seconds(duration_ns: int) -> int:
    return -(-duration_ns // NANOSECONDS)
