"""The state that an attempt moves its delivery to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from notifier.delivery.outcome import AttemptOutcome
from schemas.lifecycle import DeliveryStatus
from schemas.policy import retry_schedule


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """The state a delivery moves to.

    Attributes:
        next_attempt_at: set while the delivery is pending.
        endpoint_is_gone: the receiver answered 410; its webhook is disabled.
    """

    status: DeliveryStatus
    next_attempt_at: datetime | None = None
    endpoint_is_gone: bool = False


def after(
    outcome: AttemptOutcome,
    *,
    attempts_made: int,
    delays: Sequence[timedelta],
    now: datetime,
    jitter: float,
    retry_after: timedelta | None,
) -> Settlement:
    """Return the state after an attempt.

    Args:
        outcome: the outcome of the attempt.
        attempts_made: number of attempts, including this attempt.
        delays: see `retry_schedule.next_attempt`, as for `jitter` and `retry_after`.
        now: the end of the attempt.
        jitter: between -1 and 1.
        retry_after: the delay that the receiver asked for.
    """
    match outcome:
        case AttemptOutcome.DELIVERED:
            return Settlement(status=DeliveryStatus.DELIVERED)
        case AttemptOutcome.GONE:
            return Settlement(status=DeliveryStatus.DISCARDED, endpoint_is_gone=True)
        case AttemptOutcome.EVENT_MISSING:
            return Settlement(status=DeliveryStatus.DISCARDED)
        case _:
            next_attempt_at = retry_schedule.next_attempt(
                attempts_made, delays=delays, now=now, jitter=jitter, retry_after=retry_after
            )
            if next_attempt_at is None:
                return Settlement(status=DeliveryStatus.EXHAUSTED)
            return Settlement(status=DeliveryStatus.PENDING, next_attempt_at=next_attempt_at)
