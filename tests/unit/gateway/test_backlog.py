from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backlog import RETRY_AFTER_MAX, RETRY_AFTER_UNKNOWN, DrainRate, retry_after


@pytest.mark.parametrize(
    ("excess", "rate", "seconds"),
    [
        (1, 1000, 1),
        (10, 2, 5),
        (10, 3, 4),
        (1, 0, 600),
        (5, -1, 600),
        (10**9, 0.1, 600),
    ],
)
def test_a_client_waits_until_the_excess_has_drained(
    excess: int, rate: float, seconds: int
) -> None:
    assert retry_after(excess, rate) == timedelta(seconds=seconds)


def test_a_client_waits_a_fixed_time_while_the_rate_is_unknown() -> None:
    assert retry_after(10**9, None) == RETRY_AFTER_UNKNOWN


@given(st.integers(1, 2**62), st.floats(-1e9, 1e9))
def test_the_wait_is_whole_seconds_between_1_and_600(excess: int, rate: float) -> None:
    wait = retry_after(excess, rate)

    assert timedelta(seconds=1) <= wait <= RETRY_AFTER_MAX == timedelta(seconds=600)
    assert wait.microseconds == 0


def test_two_readings_give_the_rate() -> None:
    rate = DrainRate()

    assert rate.read(100, at=0) is None
    assert rate.read(150, at=10) == 5
    assert rate.read(150, at=20) == 0


def test_readings_too_close_together_keep_the_earlier_rate() -> None:
    rate = DrainRate()

    assert rate.read(100, at=0) is None
    assert rate.read(9999, at=1) is None
    assert rate.read(150, at=10) == 5
    assert rate.read(9999, at=11) == 5


def test_a_rate_begins_anew_after_a_long_pause() -> None:
    rate = DrainRate()
    rate.read(100, at=0)
    rate.read(150, at=10)

    assert rate.read(200, at=1000) is None
    assert rate.read(300, at=1010) == 10
