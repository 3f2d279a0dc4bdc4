"""The difference of two clocks."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.policy import clocks

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
ROUND_TRIP = timedelta(seconds=4)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (NOON, 0),
        (NOON + timedelta(seconds=4), 0),
        (NOON + timedelta(seconds=5), -1),
        (NOON - timedelta(seconds=1), 1),
        (NOON + timedelta(days=2, seconds=4), -2 * 86400),
    ],
)
def test_a_round_trip_is_no_difference(answer: datetime, expected: int) -> None:
    found = clocks.ahead(asked=NOON, answer=answer, answered=NOON + ROUND_TRIP)
    assert found == timedelta(seconds=expected)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (timedelta(days=2, seconds=0.4), "2 days, 0:00:00 ahead of"),
        (timedelta(seconds=-45), "0:00:45 behind"),
    ],
)
def test_a_difference_is_described_in_words(difference: timedelta, words: str) -> None:
    assert words in clocks.description(difference)
