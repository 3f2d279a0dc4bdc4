"""Problems that end by themselves, such as a restart, unless they last: then an operator is needed."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

PATIENCE: Final = timedelta(minutes=2)
"""A store or a broker restarts within this time, and meanwhile answers as if it were misconfigured."""

REPEATED_AFTER: Final = timedelta(minutes=5)
"""Between two calls for an operator: thousands of events may meet the same problem."""


class LastingProblem:
    """Decides when a problem that this process meets again and again calls for an operator."""

    def __init__(
        self,
        *,
        ends_after: timedelta = timedelta.max,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a problem that was not met yet.

        Args:
            ends_after: a problem that is not met for so long has ended, also without `solved`.
            monotonic: the clock.
        """
        self._ends_after = ends_after.total_seconds()
        self._monotonic = monotonic
        self._since: float | None = None
        self._met_at = 0.0
        self._call_at = 0.0

    def met(self) -> bool:
        """Return whether to call for an operator now."""
        now = self._monotonic()
        if self._since is None or now - self._met_at > self._ends_after:
            self._since, self._call_at = now, now + PATIENCE.total_seconds()
        self._met_at = now
        if now < self._call_at:
            return False
        self._call_at = now + REPEATED_AFTER.total_seconds()
        return True

    def solved(self) -> None:
        self._since = None
