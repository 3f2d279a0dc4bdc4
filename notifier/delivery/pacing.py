"""When an endpoint may get its next request: its rate, and its pauses after it throttled.

Times are seconds of one clock that never goes back.
"""

from dataclasses import dataclass
from typing import Final

from schemas.policy.retry_schedule import RETRY_AFTER_MAX

FIRST_PAUSE: Final = 5.0
"""Seconds of the pause after a throttling answer without Retry-After; doubles with each further one."""

PAUSE_MAX: Final = 300.0

BURST: Final = 0.1
"""Seconds of the rate that may be used at once, after a time without requests."""


@dataclass(kw_only=True, slots=True)
class Pace:
    """The pace of one endpoint.

    Attributes:
        rate: most requests per second; None without a limit.
        blocked_until: no request before.
        throttles: throttling answers since the last success. Until a success there is one request at
            a time, a probe.
    """

    rate: float | None = None
    blocked_until: float = 0.0
    throttles: int = 0
    _blocked_at: float = 0.0
    _exhausted_until: float = 0.0

    def ready_at(self, *, now: float, under_way: int) -> float | None:
        """Return when the next request may start: `now` or later; None if a probe must end first."""
        if self.throttles and under_way:
            return None
        ready_at = max(now, self.blocked_until)
        if self.rate is not None:
            ready_at = max(ready_at, self._exhausted_until - BURST)
        return ready_at

    def change_rate(self, rate: float | None, *, now: float) -> None:
        """Take another rate; the next request waits for one interval of it at most."""
        if rate is not None and rate != self.rate:
            self._exhausted_until = min(self._exhausted_until, now + 1 / rate)
        self.rate = rate

    def start(self, *, now: float) -> None:
        """Count a request."""
        if self.rate is not None:
            self._exhausted_until = max(self._exhausted_until, now) + 1 / self.rate

    def throttle(self, *, started_at: float, now: float, retry_after: float | None) -> None:
        """Take a throttling answer (429, 502, 503, 504) to a request that started at `started_at`."""
        pause = retry_after
        # The answers to requests that were under way together count once.
        if not self.throttles or started_at >= self._blocked_at:
            self._blocked_at = now
            self.throttles += 1
            if pause is None:
                doublings = min(self.throttles - 1, 10)
                pause = min(FIRST_PAUSE * (1 << doublings), PAUSE_MAX)
        if pause is not None:
            until = now + min(pause, RETRY_AFTER_MAX.total_seconds())
            self.blocked_until = max(self.blocked_until, until)

    def accept(self, *, started_at: float) -> None:
        """Take a 2xx to a request that started at `started_at`."""
        # A request from before a pause says nothing about the time after it.
        if started_at >= self._blocked_at:
            self.throttles = 0
