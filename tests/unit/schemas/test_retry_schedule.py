from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.policy.retry_schedule import RETRY_AFTER_MAX, next_attempt
from schemas.settings import DeliverySettings

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
DELAYS = DeliverySettings().webhook_retry_delays


def test_by_default_a_failing_delivery_is_attempted_ten_times_in_three_days() -> None:
    now, delays = NOW, list[timedelta]()
    while (due := next_attempt(len(delays) + 1, delays=DELAYS, now=now, jitter=0)) is not None:
        delays.append(due - now)
        now = due
    assert delays == [
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


def test_retry_delays_are_read_from_a_comma_separated_setting() -> None:
    settings = DeliverySettings.model_validate({"webhook_retry_delays": "1s, 250ms,2h"})
    assert settings.webhook_retry_delays == (
        timedelta(seconds=1),
        timedelta(milliseconds=250),
        timedelta(hours=2),
    )
    assert DeliverySettings.model_validate({"webhook_retry_delays": ""}).webhook_retry_delays == ()


def test_without_delays_there_is_one_attempt() -> None:
    assert next_attempt(1, delays=(), now=NOW, jitter=0) is None


@pytest.mark.parametrize(("jitter", "seconds"), [(-1, 240), (0, 300), (1, 360)])
def test_jitter_changes_a_delay_by_a_fifth_at_most(jitter: float, seconds: int) -> None:
    due = next_attempt(2, delays=DELAYS, now=NOW, jitter=jitter)
    assert due == NOW + timedelta(seconds=seconds)


@given(
    attempts_made=st.integers(1, len(DELAYS)),
    jitter=st.floats(-1, 1),
    retry_after=st.timedeltas(timedelta(0), RETRY_AFTER_MAX),
)
def test_no_attempt_is_earlier_than_the_receiver_asked(
    attempts_made: int, jitter: float, retry_after: timedelta
) -> None:
    due = next_attempt(
        attempts_made, delays=DELAYS, now=NOW, jitter=jitter, retry_after=retry_after
    )
    assert due is not None
    assert due >= NOW + retry_after


def test_a_short_retry_after_does_not_shorten_the_delay() -> None:
    due = next_attempt(3, delays=DELAYS, now=NOW, jitter=0, retry_after=timedelta(seconds=1))
    assert due == NOW + timedelta(minutes=30)


def test_retry_after_is_capped_at_a_day() -> None:
    due = next_attempt(1, delays=DELAYS, now=NOW, jitter=0, retry_after=timedelta(days=3650))
    assert due == NOW + timedelta(hours=24)


@pytest.mark.parametrize("attempts_made", [10, 11, 1000])
def test_retry_after_adds_no_attempt(attempts_made: int) -> None:
    due = next_attempt(
        attempts_made, delays=DELAYS, now=NOW, jitter=0, retry_after=timedelta(seconds=1)
    )
    assert due is None


@pytest.mark.parametrize("jitter", [-1.1, 1.1, float("nan")])
def test_jitter_outside_its_range_is_refused(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter"):
        next_attempt(1, delays=DELAYS, now=NOW, jitter=jitter)


@pytest.mark.parametrize("attempts_made", [-1, 0])
def test_a_number_of_attempts_below_one_is_refused(attempts_made: int) -> None:
    with pytest.raises(ValueError, match="attempts"):
        next_attempt(attempts_made, delays=DELAYS, now=NOW, jitter=0)


@pytest.mark.parametrize("jitter", [-1, 1])
def test_jitter_makes_a_requested_wait_longer_by_a_minute_at_most(jitter: int) -> None:
    for asked, later in ((30, 6), (600, 60), (86_400, 60)):
        due = next_attempt(
            1, delays=DELAYS, now=NOW, jitter=jitter, retry_after=timedelta(seconds=asked)
        )
        assert due == NOW + timedelta(seconds=asked + later)
