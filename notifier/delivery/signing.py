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

from schemas.policy.webhook_secrets import PREFIX

KEY_SIZES: Final = range(24, 64 + 1)

# With a dot in the id, other splits into id, timestamp and body would have the same
# signature; other characters do not belong in a header.
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_-]+")


class SigningSecretMalformed(ValueError):
    """The text is not a signing secret; the message does not contain it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed signing secret: {reason}")


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """The key that is shared with an endpoint; `repr` does not show it."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) not in KEY_SIZES:
            raise SigningSecretMalformed(
                f"{len(self.key)} bytes, not {KEY_SIZES[0]} to {KEY_SIZES[-1]}"
            )

    @classmethod
    def parse(cls, text: str) -> "SigningSecret":
        """Parse the text form of a secret: ``whsec_`` and base64 of the key.

        Raises:
            SigningSecretMalformed: no prefix, not base64, or a key of the wrong size.
        """
        if not text.startswith(PREFIX):
            raise SigningSecretMalformed(f"it does not start with {PREFIX}")
        try:
            key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except ValueError:
            # The cause could carry the text into a log.
            raise SigningSecretMalformed(f"no base64 after {PREFIX}") from None
        return cls(key)


def sign(
    *secrets: SigningSecret, message_id: str, timestamp: datetime, body: bytes
) -> dict[str, str]:
    """Return the headers by which a receiver with one of the secrets verifies `body`.

    Each secret adds a signature: during a rotation a receiver has either the new secret or
    the old secret.

    Args:
        secrets: at least one secret.
        message_id: the same for every attempt of an event, so that receivers
            recognise a repetition; letters, digits, ``_`` and ``-``.
        timestamp: time of this attempt; receivers refuse a time that is minutes from their clock.
        body: the bytes that are sent, unchanged.
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
