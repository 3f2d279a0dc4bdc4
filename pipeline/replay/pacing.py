"""The times of repeated deliveries: spaced, so that the endpoint gets them at a limited rate."""

from collections.abc import Sequence
from datetime import datetime, timedelta


def times(count: int, *, free_at: datetime, now: datetime, rate: float) -> Sequence[datetime]:
    """Return when each of `count` deliveries is due.

    Args:
        count: deliveries.
        free_at: the first time that no earlier delivery of the replay has.
        now: no delivery is due before.
        rate: deliveries per second.
    """
    start = max(free_at, now)
    return [start + timedelta(seconds=place / rate) for place in range(count)]


def free_after(taken: Sequence[datetime], *, free_at: datetime, rate: float) -> datetime:
    """Return the first free time after these; see `times`."""
    return taken[-1] + timedelta(seconds=1 / rate) if taken else free_at
