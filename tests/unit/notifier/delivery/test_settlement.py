from datetime import UTC, datetime, timedelta

import pytest

from notifier.delivery import settlement
from notifier.delivery.outcome import AttemptOutcome
from notifier.delivery.settlement import REFUSALS, Schedule, Settlement
from schemas.lifecycle import DeliveryStatus, DiscardReason

SCHEDULE = Schedule(delays=(timedelta(seconds=5), timedelta(minutes=5)) * 3, refusals_max=3)
LAST = len(SCHEDULE.delays) + 1
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FINAL = {AttemptOutcome.DELIVERED, AttemptOutcome.GONE, AttemptOutcome.EVENT_MISSING}
RETRIED = [outcome for outcome in AttemptOutcome if outcome not in FINAL]


def after(
    outcome: AttemptOutcome,
    *,
    status_code: int | None = None,
    attempts_made: int = 1,
    only_refused: bool = True,
    retry_after: timedelta | None = None,
) -> Settlement:
    return settlement.after(
        outcome,
        status_code=status_code,
        attempts_made=attempts_made,
        only_refused=only_refused,
        schedule=SCHEDULE,
        now=NOW,
        jitter=0,
        retry_after=retry_after,
    )


def test_a_successful_attempt_settles_the_delivery() -> None:
    assert after(AttemptOutcome.DELIVERED) == Settlement(status=DeliveryStatus.DELIVERED)


def test_410_discards_the_delivery_and_disables_the_webhook() -> None:
    assert after(AttemptOutcome.GONE) == Settlement(
        status=DeliveryStatus.DISCARDED,
        reason=DiscardReason.ENDPOINT_DISABLED,
        endpoint_is_gone=True,
    )


def test_a_missing_event_discards_the_delivery_and_leaves_the_webhook_enabled() -> None:
    assert after(AttemptOutcome.EVENT_MISSING) == Settlement(
        status=DeliveryStatus.DISCARDED, reason=DiscardReason.EVENT_MISSING
    )


@pytest.mark.parametrize("outcome", RETRIED)
def test_an_outcome_that_is_not_final_is_retried_by_the_schedule(
    outcome: AttemptOutcome,
) -> None:
    assert after(outcome, attempts_made=1) == Settlement(
        status=DeliveryStatus.PENDING, next_attempt_at=NOW + timedelta(seconds=5)
    )


@pytest.mark.parametrize("outcome", RETRIED)
def test_a_failed_last_attempt_exhausts_the_delivery(outcome: AttemptOutcome) -> None:
    assert after(outcome, attempts_made=LAST) == Settlement(status=DeliveryStatus.EXHAUSTED)


@pytest.mark.parametrize("outcome", RETRIED)
def test_retry_after_delays_the_next_attempt_after_every_failure(outcome: AttemptOutcome) -> None:
    moved = after(outcome, retry_after=timedelta(minutes=2))
    assert moved.next_attempt_at == NOW + timedelta(minutes=2)


@pytest.mark.parametrize("status", sorted(REFUSALS))
def test_a_delivery_that_is_only_refused_has_fewer_attempts(status: int) -> None:
    refused = AttemptOutcome.REJECTED
    assert after(refused, status_code=status, attempts_made=2).status is DeliveryStatus.PENDING
    assert after(refused, status_code=status, attempts_made=3).status is DeliveryStatus.EXHAUSTED


@pytest.mark.parametrize("status", [408, 409, 418, 423, 425, 451, 500, 599])
def test_another_failure_has_every_attempt_of_the_schedule(status: int) -> None:
    failed = AttemptOutcome.REJECTED
    assert after(failed, status_code=status, attempts_made=LAST - 1).next_attempt_at is not None


def test_a_refusal_after_another_failure_has_every_attempt_of_the_schedule() -> None:
    moved = after(
        AttemptOutcome.REJECTED, status_code=404, attempts_made=LAST - 1, only_refused=False
    )
    assert moved.status is DeliveryStatus.PENDING


@pytest.mark.parametrize(
    ("days", "failures", "expected"),
    [(4.9, 1000, False), (5, 9, False), (5, 10, True), (400, 10, True)],
)
def test_an_endpoint_is_failing_after_days_and_ten_failures(
    days: float,
    failures: int,
    expected: object,
) -> None:
    assert (
        settlement.is_failing(
            failing_since=NOW - timedelta(days=days),
            failures=failures,
            disable_after=timedelta(days=5),
            now=NOW,
        )
        is expected
    )
