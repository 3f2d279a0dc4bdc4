"""Checks of what a client asks for an endpoint, beyond the types of the fields."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from gateway.http.problems import InvalidRequest
from schemas.api.webhooks import WebhookHeader
from schemas.policy import event_filters, webhook_headers, webhook_secrets
from schemas.policy.event_filters import EventTypeUnknown
from schemas.policy.webhook_headers import Header, HeaderRefused
from schemas.policy.webhook_secrets import SecretKind, SecretMalformed
from schemas.queues import NOTIFY
from schemas.topology import SUBSCRIPTIONS

KNOWN_TYPES: Final = SUBSCRIPTIONS[NOTIFY]


def event_types_of(event_types: Sequence[str]) -> list[str]:
    """Return the filters without repetitions.

    Raises:
        InvalidRequest: a filter selects no event that endpoints receive.
    """
    try:
        return event_filters.check_types(event_types, known=KNOWN_TYPES)
    except EventTypeUnknown as error:
        raise InvalidRequest(str(error), field="event_types") from error


def timeout_of(seconds: float | None, *, longest: timedelta) -> timedelta | None:
    """Return a timeout of an endpoint.

    Raises:
        InvalidRequest: it is longer than `longest`.
    """
    if seconds is None:
        return None
    if seconds > longest.total_seconds():
        raise InvalidRequest(f"is longer than {longest.total_seconds():g} s", field="timeout")
    return timedelta(seconds=seconds)


def headers_of(
    given: Sequence[WebhookHeader], *, present: Sequence[Header] = ()
) -> tuple[Header, ...]:
    """Return the headers of an endpoint; one without a value keeps the value that it has.

    A sensitive value is kept only for a sensitive header, because it would be shown otherwise.

    Args:
        given: the headers that the client asks for.
        present: the headers that the endpoint has.

    Raises:
        InvalidRequest: a header is not allowed, or has no value to keep.
    """
    kept = {header.name.lower(): header for header in present}
    headers = []
    for index, header in enumerate(given):
        value = header.value
        if value is None and (earlier := kept.get(header.name.lower())) is not None:
            if earlier.sensitive and not header.sensitive:
                raise InvalidRequest(
                    "is missing: a sensitive value is never shown", field=f"headers[{index}].value"
                )
            value = earlier.value
        if value is None:
            raise InvalidRequest("is missing", field=f"headers[{index}].value")
        headers.append(Header(name=header.name, value=value, sensitive=header.sensitive))
    try:
        webhook_headers.check(headers)
    except HeaderRefused as error:
        field = "headers" if error.index is None else f"headers[{error.index}]"
        raise InvalidRequest(str(error), field=field) from error
    return tuple(headers)


def secret_of(given: str | None, *, kind: SecretKind | None, default: SecretKind) -> str:
    """Return the secret that the client brings, or a new one.

    Args:
        given: a secret of the client.
        kind: the kind that the client asks for.
        default: the kind of a new secret, if the client asks for none.

    Raises:
        InvalidRequest: the secret is malformed, or of another kind.
    """
    if given is None:
        return webhook_secrets.generate(kind or default)
    try:
        webhook_secrets.key_bytes(given)
        of_secret = webhook_secrets.kind_of(given)
    except SecretMalformed as error:
        raise InvalidRequest(str(error), field="secret") from error
    if kind not in (None, of_secret):
        raise InvalidRequest(f"is {kind}, but the secret is one of {of_secret}", field="signature")
    return given
