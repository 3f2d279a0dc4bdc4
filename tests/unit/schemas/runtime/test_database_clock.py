"""The database's time in a process with a wrong clock."""

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from schemas.runtime.database_clock import ALARM_INTERVAL, LOOK_INTERVAL, DatabaseClock

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
DAYS = timedelta(days=2)


class Clocks:
    """A machine whose clock is wrong by `wrong`."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.wrong = timedelta(0)
        self.clock = DatabaseClock(
            difference_max=timedelta(seconds=30), monotonic=lambda: self.seconds, wall=self.wall
        )

    @property
    def right(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def wall(self) -> datetime:
        return self.right + self.wrong

    def look(self) -> list[str]:
        """Look at the database's clock; return the levels and names of what is logged."""
        with capture_logs() as logged:
            self.clock.set(self.right, asked=self.wall())
        return [f"{line['log_level']} {line['event']}" for line in logged]


@pytest.mark.parametrize("wrong", [timedelta(0), DAYS, -DAYS], ids=["right", "ahead", "behind"])
def test_the_time_is_the_databases_whatever_the_machine_says(wrong: timedelta) -> None:
    clocks = Clocks()
    clocks.look()
    clocks.wrong = wrong
    clocks.seconds += 45
    assert clocks.clock.now() == clocks.right


def test_a_look_is_due_at_the_start_and_every_minute() -> None:
    clocks = Clocks()
    assert clocks.clock.is_due
    clocks.look()
    dues = [clocks.clock.is_due]
    clocks.seconds += LOOK_INTERVAL.total_seconds()
    dues.append(clocks.clock.is_due)
    assert dues == [False, True]


@pytest.mark.parametrize("wrong", [DAYS, -DAYS], ids=["ahead", "behind"])
def test_a_wrong_clock_is_logged_at_once_and_every_ten_minutes(wrong: timedelta) -> None:
    clocks = Clocks()
    clocks.wrong = wrong
    assert clocks.look() == ["error clock.wrong"]
    assert clocks.look() == []
    clocks.seconds += ALARM_INTERVAL.total_seconds()
    assert clocks.look() == ["error clock.wrong"]
    clocks.wrong = timedelta(seconds=30)
    assert clocks.look() == ["info clock.right_again"]
    assert clocks.look() == []


def test_there_is_no_time_before_the_first_look() -> None:
    with pytest.raises(RuntimeError):
        Clocks().clock.now()
