from datetime import UTC, datetime, timedelta

from pipeline.replay import pacing

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def test_deliveries_are_spaced_by_the_rate_from_now_on() -> None:
    due = pacing.times(3, free_at=NOW - timedelta(days=1), now=NOW, rate=50)

    assert due == [NOW + timedelta(milliseconds=20 * place) for place in range(3)]


def test_a_batch_begins_where_the_batch_before_ended() -> None:
    first = pacing.times(100, free_at=NOW, now=NOW, rate=50)
    free_at = pacing.free_after(first, free_at=NOW, rate=50)
    second = pacing.times(1, free_at=free_at, now=NOW + timedelta(seconds=1), rate=50)

    assert second == [NOW + timedelta(seconds=2)]


def test_a_late_batch_does_not_catch_up() -> None:
    late = NOW + timedelta(minutes=5)

    assert pacing.times(1, free_at=NOW, now=late, rate=50) == [late]


def test_a_batch_without_deliveries_takes_no_time() -> None:
    assert pacing.free_after([], free_at=NOW, rate=50) == NOW
