"""Signatures of the Standard Webhooks specification 1.0, symmetric scheme ``v1``.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # the mark of a secret, not one
KEY_SIZES: Final = range(24, 64 + 1)

# A dot would move the borders between id, timestamp and body under the same
# signature; anything else outside this set has no business in a header.
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_-]+")


class SigningSecretMalformed(ValueError):
    """The text is not a signing secret; the error does not repeat it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed signing secret: {reason}")


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """The shared key of an endpoint; printing it shows nothing of it."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) not in KEY_SIZES:
            raise SigningSecretMalformed(
                f"{len(self.key)} bytes, not {KEY_SIZES[0]} to {KEY_SIZES[-1]}"
            )

    @classmethod
    def parse(cls, text: str) -> "SigningSecret":
        """Read the form endpoints are shown: ``whsec_`` and base64 of the key.

        Raises:
            SigningSecretMalformed: no prefix, not base64, or a key of the wrong size.
        """
        if not text.startswith(SECRET_PREFIX):
            raise SigningSecretMalformed(f"it does not start with {SECRET_PREFIX}")
        try:
            key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
        except ValueError:
            # The cause could carry the text into a log.
            raise SigningSecretMalformed(f"no base64 after {SECRET_PREFIX}") from None
        return cls(key)


def sign(
    *secrets: SigningSecret, message_id: str, timestamp: datetime, body: bytes
) -> dict[str, str]:
    """Return the headers that prove `body` to whoever holds one of the secrets.

    Several secrets give several signatures: during a rotation a receiver may
    hold the new one or the old one.

    Args:
        secrets: at least one.
        message_id: the same for every attempt of one event, so that receivers
            can recognise a repetition; letters, digits, ``_`` and ``-``.
        timestamp: of this attempt; receivers refuse one that is minutes away.
        body: exactly the bytes that are sent.
    """
    if not secrets:
        raise ValueError("a webhook is signed with at least one secret")
    if timestamp.tzinfo is None:
        raise ValueError("the timestamp of a signature needs a time zone")
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"message id {message_id!r} has characters a signature cannot cover")
    seconds = str(int(timestamp.timestamp()))
    content = b".".join((message_id.encode(), seconds.encode(), body))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(_signature(secret, content) for secret in secrets),
    }


def _signature(secret: SigningSecret, content: bytes) -> str:
    digest = hmac.digest(secret.key, content, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
