"""The database's time in a process, and the log of a process whose own clock is wrong."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from schemas.policy import clocks

log = structlog.stdlib.get_logger(__name__)

LOOK_INTERVAL: Final = timedelta(minutes=1)

ALARM_INTERVAL: Final = timedelta(minutes=10)
"""Between two log lines about a clock that stays wrong."""


class DatabaseClock:
    """Continues the database's time between two looks at it.

    Times that decide something are the database's: processes on several machines must agree, and the
    clock of a machine may be days off.
    """

    def __init__(
        self,
        *,
        difference_max: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Create a clock; it has no time before the first `set`.

        Args:
            difference_max: how far the clock of the process may be from the database's.
            monotonic: seconds since some moment.
            wall: the clock of the process, which may be wrong.
        """
        self._difference_max = difference_max
        self._monotonic = monotonic
        self.wall = wall
        self._answer: datetime | None = None
        self._answered_at = 0.0
        self._alarm_at: float | None = None

    @property
    def is_due(self) -> bool:
        """Whether it is time to look at the database's clock again."""
        age = self._monotonic() - self._answered_at
        return self._answer is None or age >= LOOK_INTERVAL.total_seconds()

    def set(self, answer: datetime, *, asked: datetime) -> None:
        """Take over the database's time; log if the clock of the process is wrong.

        Args:
            answer: the database's time, which has just arrived.
            asked: what `wall` returned before the question.
        """
        self._answer = answer
        self._answered_at = self._monotonic()
        difference = clocks.ahead(asked=asked, answer=answer, answered=self.wall())
        if abs(difference) <= self._difference_max:
            if self._alarm_at is not None:
                log.info("clock.right_again")
            self._alarm_at = None
        elif self._alarm_at is None or self._answered_at >= self._alarm_at:
            self._alarm_at = self._answered_at + ALARM_INTERVAL.total_seconds()
            log.error(
                "clock.wrong",
                detail=f"{clocks.description(difference)}; synchronise the clocks",
                seconds_ahead=round(difference.total_seconds()),
                seconds_allowed=self._difference_max.total_seconds(),
            )

    def now(self) -> datetime:
        """Return the database's time.

        Raises:
            RuntimeError: `set` was never called.
        """
        if self._answer is None:
            raise RuntimeError("the database's time is not known yet")
        return self._answer + timedelta(seconds=self._monotonic() - self._answered_at)
