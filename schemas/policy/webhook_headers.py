"""Further headers of the requests to an endpoint: their rules, and their form in the database.

The column `webhooks.headers` holds a token of the key ring, bound to the row: a value may be a
credential of the receiver.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from schemas.ids import WebhookId
from schemas.key_ring import KeyRing

COUNT_MAX: Final = 16
NAME_MAX: Final = 128
VALUE_MAX: Final = 4096
BYTES_MAX: Final = 8 * 1024
"""Most bytes of all names and values; common servers refuse a head of 8 to 16 KiB."""

REDACTED: Final = "***"

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a token (RFC 9110, 5.6.2)
_VALUE: Final = re.compile(r"[!-~]([ \t!-~]*[!-~])?")
# The framing of the request, what Waybill states itself, and what a receiver takes from proxies.
_RESERVED: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "date",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
    }
)
# Clouds' metadata services answer only requests with such headers: with them, one hole in the rules
# for addresses would be enough.
_RESERVED_PREFIXES: Final = (
    "content-",
    "metadata",
    "proxy-",
    "webhook-",
    "x-aws-ec2-metadata-",
    "x-forwarded-",
    "x-google-metadata-",
    "x-real-ip",
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header; the value of a sensitive one is never shown."""

    name: str
    value: str
    sensitive: bool = True


class HeaderRefused(ValueError):
    """The rules forbid a header; the message does not contain a value.

    Attributes:
        index: the place of the header in the list; None if the list is refused.
    """

    def __init__(self, reason: str, *, index: int | None = None) -> None:
        super().__init__(reason)
        self.index = index


def check(headers: Sequence[Header]) -> None:
    """Check the headers of an endpoint.

    Raises:
        HeaderRefused: with the rule that is broken.
    """
    if len(headers) > COUNT_MAX:
        raise HeaderRefused(f"more than {COUNT_MAX} headers")
    seen = set[str]()
    for index, header in enumerate(headers):
        name = header.name.lower()
        if len(name) > NAME_MAX or not _NAME.fullmatch(name):
            raise HeaderRefused(
                f"the name is not a token of at most {NAME_MAX} characters", index=index
            )
        if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            raise HeaderRefused(f"the name {name} is reserved", index=index)
        if name in seen:
            raise HeaderRefused(f"the name {name} is repeated", index=index)
        seen.add(name)
        if len(header.value) > VALUE_MAX or not _VALUE.fullmatch(header.value):
            raise HeaderRefused(
                f"the value is not 1 to {VALUE_MAX} printable ASCII characters without white space"
                " around them",
                index=index,
            )
    if sum(len(header.name) + len(header.value) for header in headers) > BYTES_MAX:
        raise HeaderRefused(f"names and values have more than {BYTES_MAX} bytes")


def redact(headers: Sequence[Header]) -> tuple[Header, ...]:
    """Return the headers with `REDACTED` as the value of each sensitive one, for logs."""
    return tuple(
        Header(name=header.name, value=REDACTED) if header.sensitive else header
        for header in headers
    )


def encrypt(headers: Sequence[Header], *, webhook_id: WebhookId, keys: KeyRing) -> str | None:
    """Return the form of headers in the database, for the row of one webhook; None for no headers."""
    if not headers:
        return None
    return keys.encrypt(msgspec.json.encode(headers), context=_context(webhook_id))


def decrypt(stored: str | None, *, webhook_id: WebhookId, keys: KeyRing) -> tuple[Header, ...]:
    """Return the headers in the database.

    Raises:
        DecryptionFailed: no key decrypts them, or they belong to another webhook.
    """
    if stored is None:
        return ()
    decrypted = keys.decrypt(stored, context=_context(webhook_id))
    return msgspec.json.decode(decrypted, type=tuple[Header, ...])


def _context(webhook_id: WebhookId) -> str:
    return f"webhooks.headers:{webhook_id}"
