"""When a delivery is tried again."""

from datetime import datetime, timedelta
from typing import Final

DELAYS: Final = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The wait before each attempt: ten attempts over about three days, a weekend and a Monday.

The example of the Standard Webhooks specification.
"""

JITTER: Final = 0.2
"""The share of a wait that chance may add or take, so that endpoints that failed together do not return together."""

RETRY_AFTER_MAX: Final = timedelta(hours=24)
"""A receiver may slow its deliveries down, not park them for ever."""


def next_attempt(
    after: int, *, now: datetime, jitter: float, retry_after: timedelta | None = None
) -> datetime | None:
    """Return when to try again, or None when the schedule is used up.

    Args:
        after: attempts made so far; 0 asks for the first one, which is due at once.
        now: when the last attempt ended.
        jitter: between -1 and 1, drawn by the caller; scaled to the share `JITTER`.
        retry_after: what the receiver asked for; the answer is never earlier,
            up to `RETRY_AFTER_MAX`.
    """
    if after < 0:
        raise ValueError(f"{after} attempts cannot have been made")
    if not -1 <= jitter <= 1:
        raise ValueError(f"jitter {jitter} is not between -1 and 1")
    if after >= len(DELAYS):
        return None
    wait = DELAYS[after] * (1 + JITTER * jitter)
    if retry_after is not None:
        wait = max(wait, min(retry_after, RETRY_AFTER_MAX))
    return now + wait
