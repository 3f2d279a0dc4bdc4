from datetime import UTC, datetime, timedelta

import pytest

from notifier.delivery import settlement
from notifier.delivery.outcome import AttemptOutcome
from notifier.delivery.settlement import Settlement
from schemas.lifecycle import DeliveryStatus

DELAYS = (timedelta(seconds=5), timedelta(minutes=5))
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FINAL = {AttemptOutcome.DELIVERED, AttemptOutcome.GONE, AttemptOutcome.EVENT_MISSING}
RETRIED = [outcome for outcome in AttemptOutcome if outcome not in FINAL]


def after(
    outcome: AttemptOutcome, *, attempts_made: int = 1, retry_after: timedelta | None = None
) -> Settlement:
    return settlement.after(
        outcome,
        attempts_made=attempts_made,
        delays=DELAYS,
        now=NOW,
        jitter=0,
        retry_after=retry_after,
    )


def test_a_successful_attempt_settles_the_delivery() -> None:
    assert after(AttemptOutcome.DELIVERED) == Settlement(status=DeliveryStatus.DELIVERED)


def test_410_discards_the_delivery_and_disables_the_webhook() -> None:
    assert after(AttemptOutcome.GONE) == Settlement(
        status=DeliveryStatus.DISCARDED, endpoint_is_gone=True
    )


def test_a_missing_event_discards_the_delivery_and_leaves_the_webhook_enabled() -> None:
    assert after(AttemptOutcome.EVENT_MISSING) == Settlement(status=DeliveryStatus.DISCARDED)


@pytest.mark.parametrize("outcome", RETRIED)
def test_an_outcome_that_is_not_final_is_retried_by_the_schedule(
    outcome: AttemptOutcome,
) -> None:
    assert after(outcome, attempts_made=1) == Settlement(
        status=DeliveryStatus.PENDING, next_attempt_at=NOW + timedelta(seconds=5)
    )


@pytest.mark.parametrize("outcome", RETRIED)
def test_a_failed_last_attempt_exhausts_the_delivery(outcome: AttemptOutcome) -> None:
    assert after(outcome, attempts_made=len(DELAYS) + 1) == Settlement(
        status=DeliveryStatus.EXHAUSTED
    )


def test_retry_after_delays_the_next_attempt() -> None:
    moved = after(AttemptOutcome.THROTTLED, retry_after=timedelta(minutes=2))
    assert moved.next_attempt_at == NOW + timedelta(minutes=2)
