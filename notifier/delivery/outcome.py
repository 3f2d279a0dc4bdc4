"""What an attempt came to, and what its answer asks for."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final


class AttemptOutcome(StrEnum):
    """How an attempt ended.

    `DELIVERED` settles the delivery and `GONE` disables the endpoint; after
    anything else the delivery is tried again as long as the schedule lasts.
    The values are stored with attempts and label metrics.
    """

    DELIVERED = "delivered"  # 2xx
    GONE = "gone"  # 410: the receiver wants no more of this endpoint
    THROTTLED = "throttled"  # 429, 502, 503, 504: slow the whole endpoint down
    REDIRECTED = "redirected"  # 3xx: a redirect could lead past every check of the target
    REJECTED = "rejected"  # any other status
    TARGET_REFUSED = "target_refused"  # by us: the URL, or an address its name resolves to
    NAME_UNRESOLVED = "name_unresolved"
    UNREACHABLE = "unreachable"  # no TCP connection
    TLS_FAILED = "tls_failed"
    TIMED_OUT = "timed_out"
    PROTOCOL_ERROR = "protocol_error"  # a broken connection, or something that is not HTTP
    NOT_ATTEMPTED = "not_attempted"  # a fault of ours, such as a secret that cannot be read


_THROTTLING: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# Ten digits are 300 years; a longer number would not fit a timedelta.
_SECONDS: Final = re.compile(r"[0-9]{1,10}")


def of_status(status: int) -> AttemptOutcome:
    """Classify an answer by its status alone; the body has no say."""
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


def parse_retry_after(value: str, *, now: datetime) -> timedelta | None:
    """Read a ``Retry-After`` field: seconds, or the date of RFC 9110 section 10.2.3.

    Returns:
        The time to wait from `now`, zero for a date gone by, or None for
        something that is neither.
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return timedelta(seconds=int(value))
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(date - now, timedelta(0))
