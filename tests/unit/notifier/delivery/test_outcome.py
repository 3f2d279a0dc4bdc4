from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery import outcome
from notifier.delivery.outcome import AttemptOutcome
from schemas.policy.retry_schedule import RETRY_AFTER_MAX

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (101, AttemptOutcome.REJECTED),
        (200, AttemptOutcome.DELIVERED),
        (204, AttemptOutcome.DELIVERED),
        (299, AttemptOutcome.DELIVERED),
        (300, AttemptOutcome.REDIRECTED),
        (304, AttemptOutcome.REDIRECTED),
        (308, AttemptOutcome.REDIRECTED),
        (400, AttemptOutcome.REJECTED),
        (404, AttemptOutcome.REJECTED),
        (410, AttemptOutcome.GONE),
        (429, AttemptOutcome.THROTTLED),
        (500, AttemptOutcome.REJECTED),
        (502, AttemptOutcome.THROTTLED),
        (503, AttemptOutcome.THROTTLED),
        (504, AttemptOutcome.THROTTLED),
        (999, AttemptOutcome.REJECTED),
    ],
)
def test_a_status_has_an_outcome(status: int, expected: AttemptOutcome) -> None:
    assert outcome.of_status(status) is expected


@given(st.integers(100, 999))
def test_only_2xx_is_delivered(status: int) -> None:
    assert (outcome.of_status(status) is AttemptOutcome.DELIVERED) == (200 <= status <= 299)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", timedelta(0)),
        ("120", timedelta(minutes=2)),
        (" 120 ", timedelta(minutes=2)),
        ("Wed, 01 Jul 2026 12:01:30 GMT", timedelta(seconds=90)),
        ("Wednesday, 01-Jul-26 12:01:30 GMT", timedelta(seconds=90)),
        ("Wed Jul  1 12:01:30 2026", timedelta(seconds=90)),
        ("Wed, 01 Jul 2026 14:01:30 +0200", timedelta(seconds=90)),
        ("Wed, 01 Jul 2026 12:01:30 -0000", timedelta(seconds=90)),
        ("Tue, 30 Jun 2026 12:00:00 GMT", timedelta(0)),
        ("0000000000000120", timedelta(minutes=2)),
        ("86401", RETRY_AFTER_MAX),
        ("9" * 11, RETRY_AFTER_MAX),
        ("9" * 5000, RETRY_AFTER_MAX),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(value: str, expected: timedelta) -> None:
    assert outcome.parse_retry_after(value, now=NOW) == expected


@pytest.mark.parametrize(
    "value",
    ["", "soon", "-5", "1.5", "1e3", "١٢", "9" * 50 + "x", "Wed, 99 Jul 2026 12:00:00 GMT", "\x00"],
)
def test_an_invalid_retry_after_is_ignored(value: str) -> None:
    assert outcome.parse_retry_after(value, now=NOW) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["soon"], None),
        (["60", "120"], timedelta(minutes=2)),
        (["120", "60"], timedelta(minutes=2)),
        (["soon", "60"], timedelta(minutes=1)),
        (["60", "Wed, 01 Jul 2026 12:01:30 GMT"], timedelta(seconds=90)),
    ],
)
def test_the_longest_valid_retry_after_counts(lines: list[str], expected: timedelta | None) -> None:
    assert outcome.requested_wait(lines, now=NOW) == expected


@given(st.text())
def test_parsing_retry_after_never_raises(value: str) -> None:
    wait = outcome.parse_retry_after(value, now=NOW)
    assert wait is None or wait >= timedelta(0)
