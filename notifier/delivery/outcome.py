"""The outcome of an attempt, and the meaning of a response."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from schemas.policy.retry_schedule import RETRY_AFTER_MAX


class AttemptOutcome(StrEnum):
    """How an attempt ended; the values are stored with the attempt and label metrics.

    `DELIVERED` and `EVENT_MISSING` settle the delivery, and `GONE` disables the endpoint.
    Every other outcome is retried until the schedule ends.
    """

    DELIVERED = "delivered"  # 2xx
    GONE = "gone"  # 410: the endpoint is gone for good
    THROTTLED = "throttled"  # 429, 502, 503, 504: slow the whole endpoint down
    REDIRECTED = "redirected"  # 3xx: following it could bypass the check of the target
    REJECTED = "rejected"  # any other status
    TARGET_REFUSED = "target_refused"  # the URL, or an address its host resolves to, is not allowed
    NAME_UNRESOLVED = "name_unresolved"
    UNREACHABLE = "unreachable"  # no TCP connection
    TLS_FAILED = "tls_failed"
    TIMED_OUT = "timed_out"
    PROTOCOL_ERROR = "protocol_error"  # a broken connection, or a response that is not HTTP/1.1 or exceeds a bound
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105  # no key of SECRET_KEYS decrypts it, or it is malformed
    NOT_ATTEMPTED = "not_attempted"  # an internal error
    EVENT_MISSING = "event_missing"  # the table of events does not have the event any more


_THROTTLING: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_SECONDS: Final = re.compile(r"[0-9]+")
_SECONDS_MAX: Final = 18
"""Digits that are read as a number; a longer number means the cap in any case."""
_DATE_MAX: Final = 100
"""Characters; the longest date of RFC 9110 has 33."""


def of_status(status: int) -> AttemptOutcome:
    """Classify a response by its status; the body is ignored."""
    if status == HTTPStatus.GONE:
        return AttemptOutcome.GONE
    if status in _THROTTLING:
        return AttemptOutcome.THROTTLED
    match status // 100:
        case 2:
            return AttemptOutcome.DELIVERED
        case 3:
            return AttemptOutcome.REDIRECTED
        case _:
            return AttemptOutcome.REJECTED


def requested_wait(lines: Sequence[str], *, now: datetime) -> timedelta | None:
    """Return the longest wait of the ``Retry-After`` lines of an answer, None without a valid line."""
    waits = [wait for line in lines if (wait := parse_retry_after(line, now=now)) is not None]
    return max(waits, default=None)


def parse_retry_after(value: str, *, now: datetime) -> timedelta | None:
    """Read a ``Retry-After`` field: seconds, or the date of RFC 9110 section 10.2.3.

    Returns:
        The time to wait from `now`, at most `RETRY_AFTER_MAX`; zero for a date in the past; None
        for an invalid value.
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        digits = value.lstrip("0") or "0"
        if len(digits) > _SECONDS_MAX:
            return RETRY_AFTER_MAX
        return timedelta(seconds=min(int(digits), RETRY_AFTER_MAX.total_seconds()))
    if len(value) > _DATE_MAX:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(date - now, timedelta(0)), RETRY_AFTER_MAX)
