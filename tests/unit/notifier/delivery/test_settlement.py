from datetime import UTC, datetime, timedelta

import pytest

from notifier.delivery import schedule, settlement
from notifier.delivery.outcome import AttemptOutcome
from notifier.delivery.settlement import Settlement
from schemas.lifecycle import DeliveryStatus

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RETRIED = [
    outcome
    for outcome in AttemptOutcome
    if outcome not in {AttemptOutcome.DELIVERED, AttemptOutcome.GONE}
]


def after(
    outcome: AttemptOutcome, *, attempts_made: int = 1, retry_after: timedelta | None = None
) -> Settlement:
    return settlement.after(
        outcome, attempts_made=attempts_made, now=NOW, jitter=0, retry_after=retry_after
    )


def test_a_delivered_event_is_settled() -> None:
    assert after(AttemptOutcome.DELIVERED) == Settlement(status=DeliveryStatus.DELIVERED)


def test_an_endpoint_that_is_gone_settles_the_delivery_and_ends_the_webhook() -> None:
    assert after(AttemptOutcome.GONE) == Settlement(
        status=DeliveryStatus.DISCARDED, endpoint_is_gone=True
    )


@pytest.mark.parametrize("outcome", RETRIED)
def test_anything_else_is_tried_again_by_the_schedule(outcome: AttemptOutcome) -> None:
    assert after(outcome, attempts_made=1) == Settlement(
        status=DeliveryStatus.PENDING, next_attempt_at=NOW + timedelta(seconds=5)
    )


@pytest.mark.parametrize("outcome", RETRIED)
def test_the_last_attempt_of_the_schedule_exhausts_it(outcome: AttemptOutcome) -> None:
    attempts = len(schedule.DELAYS)
    assert after(outcome, attempts_made=attempts) == Settlement(status=DeliveryStatus.EXHAUSTED)


def test_a_receiver_that_asks_for_time_gets_it() -> None:
    moved = after(AttemptOutcome.THROTTLED, retry_after=timedelta(minutes=2))
    assert moved.next_attempt_at == NOW + timedelta(minutes=2)
