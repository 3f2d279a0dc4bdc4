"""The state that an attempt moves its delivery and its endpoint to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from notifier.delivery.outcome import AttemptOutcome
from schemas.lifecycle import DeliveryStatus, DiscardReason
from schemas.policy import retry_schedule

REFUSALS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        HTTPStatus.NOT_IMPLEMENTED,
    }
)
"""Statuses that the same request gets again, unless the receiver changes: a deploy answers 404 or
401 for minutes."""

FAILURES_MIN: Final = 10
"""Failed attempts before an endpoint is disabled: one that gets an event a week is not disabled
for two failures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """The state a delivery moves to.

    Attributes:
        next_attempt_at: set while the delivery is pending.
        reason: set if the delivery is discarded.
        endpoint_is_gone: the receiver answered 410; its webhook is disabled.
    """

    status: DeliveryStatus
    next_attempt_at: datetime | None = None
    reason: DiscardReason | None = None
    endpoint_is_gone: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How often a delivery is attempted.

    Attributes:
        delays: the delay before each retry.
        refusals_max: most attempts if every answer is a refusal.
    """

    delays: Sequence[timedelta]
    refusals_max: int


DELIVERED: Final = Settlement(status=DeliveryStatus.DELIVERED)


def after(
    outcome: AttemptOutcome,
    *,
    status_code: int | None,
    attempts_made: int,
    only_refused: bool,
    schedule: Schedule,
    now: datetime,
    jitter: float,
    retry_after: timedelta | None,
) -> Settlement:
    """Return the state of a delivery after an attempt.

    Args:
        outcome: the outcome of the attempt.
        status_code: the status of the answer.
        attempts_made: number of attempts, including this attempt.
        only_refused: each earlier attempt was answered with one of `REFUSALS`.
        schedule: how often a delivery is attempted.
        now: the end of the attempt.
        jitter: between -1 and 1.
        retry_after: the delay that the receiver asked for.
    """
    match outcome:
        case AttemptOutcome.DELIVERED:
            return DELIVERED
        case AttemptOutcome.GONE:
            return Settlement(
                status=DeliveryStatus.DISCARDED,
                reason=DiscardReason.ENDPOINT_DISABLED,
                endpoint_is_gone=True,
            )
        case AttemptOutcome.EVENT_MISSING:
            return Settlement(status=DeliveryStatus.DISCARDED, reason=DiscardReason.EVENT_MISSING)
    if only_refused and status_code in REFUSALS and attempts_made >= schedule.refusals_max:
        return Settlement(status=DeliveryStatus.EXHAUSTED)
    next_attempt_at = retry_schedule.next_attempt(
        attempts_made, delays=schedule.delays, now=now, jitter=jitter, retry_after=retry_after
    )
    if next_attempt_at is None:
        return Settlement(status=DeliveryStatus.EXHAUSTED)
    return Settlement(status=DeliveryStatus.PENDING, next_attempt_at=next_attempt_at)


def is_failing(
    *, failing_since: datetime, failures: int, disable_after: timedelta, now: datetime
) -> bool:
    """Return whether an endpoint has failed for so long that it is disabled.

    Args:
        failing_since: the first failure since the last success.
        failures: failed attempts since then.
        disable_after: how long an endpoint may fail.
        now: the end of a failed attempt.
    """
    return failures >= FAILURES_MIN and now - failing_since >= disable_after
