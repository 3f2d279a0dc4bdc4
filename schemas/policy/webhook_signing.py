"""Signatures of the Standard Webhooks specification 1.0: ``v1`` and ``v1a``.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.policy.webhook_secrets import SecretKind, key_bytes, kind_of

# With a dot in the id, other splits into id, timestamp and body would have the same
# signature; other characters do not belong in a header.
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningSecret:
    """The key that is shared with an endpoint (``v1``); `repr` does not show it."""

    key: bytes = field(repr=False)

    def signature(self, content: bytes) -> str:
        digest = hmac.digest(self.key, content, hashlib.sha256)
        return f"{SecretKind.V1},{base64.b64encode(digest).decode()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey:
    """The key whose public half an endpoint has (``v1a``); `repr` does not show it."""

    key: Ed25519PrivateKey = field(repr=False)

    def signature(self, content: bytes) -> str:
        return f"{SecretKind.V1A},{base64.b64encode(self.key.sign(content)).decode()}"


Signer: TypeAlias = SigningSecret | SigningKey


def parse(secret: str) -> Signer:
    """Parse the text form of a secret: ``whsec_…`` or ``whsk_…``.

    Raises:
        SecretMalformed: the text is neither.
    """
    key = key_bytes(secret)
    if kind_of(secret) is SecretKind.V1:
        return SigningSecret(key=key)
    return SigningKey(key=Ed25519PrivateKey.from_private_bytes(key))


def sign(*secrets: Signer, message_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
    """Return the headers by which a receiver with one of the secrets verifies `body`.

    Each secret adds a signature: during a rotation a receiver has either the new secret or
    the old secret.

    Args:
        secrets: at least one secret, of any kind.
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
        "webhook-signature": " ".join(secret.signature(content) for secret in secrets),
    }
