"""Requests to the object store are signed with the store's time.

A store refuses a request whose time is 15 minutes from its own
(https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html), so that a
machine with a wrong clock could store nothing. Every answer carries the store's time; the AWS SDKs for
other languages correct their clock by it, botocore does not.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from botocore import auth
from botocore.awsrequest import AWSRequest

log = structlog.stdlib.get_logger(__name__)

DIFFERENCE_MIN: Final = timedelta(minutes=1)
"""A smaller difference may be the time of the request, and no store refuses it."""

_ahead: Final[dict[str, timedelta]] = {}
"""How far each store is ahead of this process; stores that agree with it are left out."""


class StoreTimeAuth(auth.S3SigV4Auth):
    """Signature V4 with the time of the store that the request goes to."""

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        ahead = _ahead.get(urlsplit(str(request.url)).netloc)
        if ahead is not None:
            at = datetime.now(UTC) + ahead
            request.context["timestamp"] = at.strftime(auth.SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)  # type: ignore[misc]  # not in the stubs


def install() -> None:
    """Make every client of botocore use `StoreTimeAuth`."""
    auth.AUTH_TYPE_MAPS["s3v4"] = StoreTimeAuth


def learn(http_response: Any, **_: object) -> None:  # noqa: ANN401  # botocore's own event
    """Compare the clocks by an answer of the store; a handler of botocore's event `after-call`."""
    try:
        sent_at = parsedate_to_datetime(http_response.headers["Date"])
    except (KeyError, TypeError, ValueError):
        return
    if sent_at.tzinfo is None:
        return
    store = urlsplit(http_response.url).netloc
    ahead = sent_at - datetime.now(UTC)
    if abs(ahead) < DIFFERENCE_MIN:
        _ahead.pop(store, None)
        return
    if store not in _ahead:
        log.warning("store.clock_differs", seconds_ahead=round(ahead.total_seconds()))
    _ahead[store] = ahead
