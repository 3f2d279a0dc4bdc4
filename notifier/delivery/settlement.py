"""What an attempt means for its delivery."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from notifier.delivery import schedule
from notifier.delivery.outcome import AttemptOutcome
from schemas.lifecycle import DeliveryStatus


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """The state a delivery moves to.

    Attributes:
        next_attempt_at: set while it stays pending.
        endpoint_is_gone: the receiver wants nothing more; its webhook is to be disabled.
    """

    status: DeliveryStatus
    next_attempt_at: datetime | None = None
    endpoint_is_gone: bool = False


def after(
    outcome: AttemptOutcome,
    *,
    attempts_made: int,
    now: datetime,
    jitter: float,
    retry_after: timedelta | None,
) -> Settlement:
    """Return what follows from an attempt.

    Args:
        outcome: of the attempt.
        attempts_made: this one included.
        now: when it ended.
        jitter: between -1 and 1, see `schedule.next_attempt`.
        retry_after: what the receiver asked for.
    """
    match outcome:
        case AttemptOutcome.DELIVERED:
            return Settlement(status=DeliveryStatus.DELIVERED)
        case AttemptOutcome.GONE:
            return Settlement(status=DeliveryStatus.DISCARDED, endpoint_is_gone=True)
        case _:
            next_attempt_at = schedule.next_attempt(
                attempts_made, now=now, jitter=jitter, retry_after=retry_after
            )
            if next_attempt_at is None:
                return Settlement(status=DeliveryStatus.EXHAUSTED)
            return Settlement(status=DeliveryStatus.PENDING, next_attempt_at=next_attempt_at)
