import pytest

from notifier.delivery.pacing import PAUSE_MAX, Pace

DAY = 24 * 3600.0


def test_without_a_rate_and_a_block_a_request_may_start_at_once() -> None:
    assert Pace().ready_at(now=7.0, under_way=100) == 7.0


@pytest.mark.parametrize("rate", [0.1, 1, 7.5, 50, 1000])
def test_requests_keep_the_rate_over_any_time(rate: float) -> None:
    pace = Pace(rate=rate)
    now, started = 100.0, []
    while now < 100 + 200 / rate:
        ready_at = pace.ready_at(now=now, under_way=0)
        assert ready_at is not None
        now = ready_at
        pace.start(now=now)
        started.append(now)
    for index, first in enumerate(started):
        for count, later in enumerate(started[index:], start=1):
            # One, those of a burst of 0.1 s, and one for each interval.
            assert count <= 1 + (0.1 + later - first) * rate + 1e-6


def test_a_time_without_requests_does_not_add_up() -> None:
    pace = Pace(rate=10)
    pace.start(now=0.0)
    for _ in range(2):
        assert pace.ready_at(now=1000.0, under_way=0) == 1000.0
        pace.start(now=1000.0)
    assert pace.ready_at(now=1000.0, under_way=0) == pytest.approx(1000.1)


def test_a_higher_rate_counts_at_once() -> None:
    pace = Pace(rate=0.01)
    pace.start(now=0.0)
    assert pace.ready_at(now=1.0, under_way=0) == pytest.approx(99.9)
    pace.change_rate(2, now=1.0)
    ready_at = pace.ready_at(now=1.0, under_way=0)
    assert ready_at is not None
    assert ready_at <= 1.5


def test_pauses_double_up_to_five_minutes() -> None:
    pace, now, pauses = Pace(), 0.0, []
    for _ in range(10):
        pace.throttle(started_at=now, now=now, retry_after=None)
        pauses.append(pace.blocked_until - now)
        now = pace.blocked_until
    assert pauses == [5, 10, 20, 40, 80, 160, PAUSE_MAX, PAUSE_MAX, PAUSE_MAX, PAUSE_MAX]


@pytest.mark.parametrize(("retry_after", "pause"), [(60.0, 60.0), (0.0, 0.0), (9 * DAY, DAY)])
def test_retry_after_sets_the_pause_up_to_a_day(retry_after: float, pause: float) -> None:
    pace = Pace()
    pace.throttle(started_at=9.0, now=10.0, retry_after=retry_after)
    assert pace.ready_at(now=10.0, under_way=0) == 10.0 + pause


def test_answers_to_requests_that_were_under_way_together_count_once() -> None:
    pace = Pace()
    for now in (10.0, 10.1, 10.2):
        pace.throttle(started_at=9.0, now=now, retry_after=None)
    assert (pace.throttles, pace.blocked_until) == (1, 15.0)
    pace.throttle(started_at=9.0, now=10.3, retry_after=60.0)
    assert (pace.throttles, pace.blocked_until) == (1, 70.3)


def test_a_shorter_retry_after_does_not_shorten_a_block() -> None:
    pace = Pace()
    pace.throttle(started_at=9.0, now=10.0, retry_after=60.0)
    pace.throttle(started_at=9.0, now=10.0, retry_after=1.0)
    assert pace.blocked_until == 70.0


def test_after_a_block_there_is_one_request_at_a_time_until_a_success() -> None:
    pace = Pace()
    pace.throttle(started_at=9.0, now=10.0, retry_after=None)
    assert pace.ready_at(now=11.0, under_way=0) == 15.0
    assert pace.ready_at(now=16.0, under_way=0) == 16.0
    assert pace.ready_at(now=16.0, under_way=1) is None
    pace.accept(started_at=16.0)
    assert pace.ready_at(now=17.0, under_way=9) == 17.0
    pace.throttle(started_at=17.0, now=18.0, retry_after=None)
    assert pace.blocked_until == 23.0


def test_a_success_of_before_the_block_does_not_end_it() -> None:
    pace = Pace()
    pace.throttle(started_at=9.0, now=10.0, retry_after=None)
    pace.accept(started_at=9.5)
    assert pace.throttles == 1
    assert pace.ready_at(now=11.0, under_way=0) == 15.0
