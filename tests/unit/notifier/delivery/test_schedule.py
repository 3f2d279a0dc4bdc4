from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery import schedule

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_an_endpoint_that_always_fails_is_tried_ten_times_over_three_days() -> None:
    now, tried = NOW, list[timedelta]()
    while (due := schedule.next_attempt(len(tried), now=now, jitter=0)) is not None:
        tried.append(due - now)
        now = due
    assert tried == [
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
    ]
    assert timedelta(hours=75) < now - NOW < timedelta(hours=76)


@pytest.mark.parametrize(("jitter", "seconds"), [(-1, 240), (0, 300), (1, 360)])
def test_jitter_moves_a_wait_by_a_fifth_at_most(jitter: float, seconds: int) -> None:
    assert schedule.next_attempt(2, now=NOW, jitter=jitter) == NOW + timedelta(seconds=seconds)


@given(
    after=st.integers(0, len(schedule.DELAYS) - 1),
    jitter=st.floats(-1, 1),
    retry_after=st.timedeltas(timedelta(0), schedule.RETRY_AFTER_MAX),
)
def test_no_attempt_comes_before_the_receiver_asked_for_it(
    after: int, jitter: float, retry_after: timedelta
) -> None:
    due = schedule.next_attempt(after, now=NOW, jitter=jitter, retry_after=retry_after)
    assert due is not None
    assert due >= NOW + retry_after


def test_a_short_retry_after_does_not_hurry_the_schedule() -> None:
    due = schedule.next_attempt(3, now=NOW, jitter=0, retry_after=timedelta(seconds=1))
    assert due == NOW + timedelta(minutes=30)


def test_a_receiver_cannot_park_a_delivery_beyond_a_day() -> None:
    due = schedule.next_attempt(1, now=NOW, jitter=0, retry_after=timedelta(days=3650))
    assert due == NOW + timedelta(hours=24)


@pytest.mark.parametrize("after", [10, 11, 1000])
def test_a_used_up_schedule_stays_used_up_whatever_the_receiver_asks(after: int) -> None:
    assert schedule.next_attempt(after, now=NOW, jitter=0, retry_after=timedelta(seconds=1)) is None


@pytest.mark.parametrize("jitter", [-1.1, 1.1, float("nan")])
def test_jitter_outside_its_range_is_refused(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter"):
        schedule.next_attempt(0, now=NOW, jitter=jitter)


def test_a_negative_number_of_attempts_is_refused() -> None:
    with pytest.raises(ValueError, match="attempts"):
        schedule.next_attempt(-1, now=NOW, jitter=0)
