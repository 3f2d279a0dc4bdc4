"""When a delivery is attempted again."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

JITTER: Final = 0.2
"""Share of a delay that is added or taken at random, so that endpoints that failed together are not retried together."""

RETRY_AFTER_JITTER_MAX: Final = timedelta(minutes=1)
"""Added to a requested delay at random, a fifth of it at most: never taken."""

RETRY_AFTER_MAX: Final = timedelta(hours=24)
"""A receiver may slow its deliveries down, but not stop them."""

ATTEMPTS_MAX: Final = 1_000
"""Attempts of a delivery after which it is not sent or replayed again. Their number is a small integer:
a tenant that sends a delivery again and again would reach its end."""


def next_attempt(
    attempts_made: int,
    *,
    delays: Sequence[timedelta],
    now: datetime,
    jitter: float,
    retry_after: timedelta | None = None,
) -> datetime | None:
    """Return the time of the next attempt, or None after the last attempt.

    Args:
        attempts_made: attempts so far, at least 1.
        delays: the delay before each retry.
        now: the end of the last attempt.
        jitter: between -1 and 1, drawn by the caller; scaled by `JITTER`.
        retry_after: the receiver's request; the next attempt is not earlier,
            up to `RETRY_AFTER_MAX`.
    """
    if attempts_made < 1:
        raise ValueError(f"{attempts_made} attempts cannot have been made")
    if not -1 <= jitter <= 1:
        raise ValueError(f"jitter {jitter} is not between -1 and 1")
    if attempts_made > len(delays):
        return None
    delay = delays[attempts_made - 1] * (1 + JITTER * jitter)
    if retry_after is not None:
        requested = min(retry_after, RETRY_AFTER_MAX)
        later = min(requested * JITTER, RETRY_AFTER_JITTER_MAX) * abs(jitter)
        delay = max(delay, requested + later)
    return now + delay
