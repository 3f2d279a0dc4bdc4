from collections.abc import Mapping
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError


class Unverified(Exception):
    """Answer 400, and do not work on the body."""


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = Webhook(secret).verify(body, dict(headers))
    except (WebhookVerificationError, ValueError) as error:
        # The library raises ValueError for some malformed headers: without it, a 500.
        raise Unverified from error
    return event
