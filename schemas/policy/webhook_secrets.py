"""The secrets of a webhook: their text forms, and their form in the database.

An endpoint verifies with the secret itself (``v1``, HMAC-SHA256), or with the public key of the
secret (``v1a``, ed25519), which cannot sign.

The column `webhook_secrets.secret` holds a token of the key ring. Rows that were written
before there were keys hold the text form, until `waybill secrets rotate`.
"""

import base64
import os
from enum import StrEnum
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.ids import WebhookId
from schemas.key_ring import KeyRing

PREFIX: Final = "whsec_"  # not secret
PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"

KEY_SIZES: Final = range(24, 64 + 1)
"""Sizes of a ``whsec_`` key in bytes."""

NEW_KEY_BYTES: Final = 32
SEED_BYTES: Final = 32
PAIR_BYTES: Final = SEED_BYTES + 32
"""A ``whsk_`` key: the seed of ed25519, then its public key."""


class SecretKind(StrEnum):
    """How a secret signs: the version of its signatures in Standard Webhooks."""

    V1 = "v1"  # HMAC-SHA256; `whsec_…`
    V1A = "v1a"  # ed25519; `whsk_…`, verified with `whpk_…`


_PREFIXES: Final = {SecretKind.V1: PREFIX, SecretKind.V1A: PRIVATE_PREFIX}


class SecretMalformed(ValueError):
    """The text is not a signing secret; the message does not contain it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed signing secret: {reason}")


def generate(kind: SecretKind) -> str:
    """Return a new secret in its text form."""
    if kind is SecretKind.V1:
        return PREFIX + base64.b64encode(os.urandom(NEW_KEY_BYTES)).decode()
    key = Ed25519PrivateKey.generate()
    pair = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return PRIVATE_PREFIX + base64.b64encode(pair).decode()


def kind_of(secret: str) -> SecretKind:
    """Return the kind that the prefix of a secret names.

    Raises:
        SecretMalformed: the text has another prefix.
    """
    for kind, prefix in _PREFIXES.items():
        if secret.startswith(prefix):
            return kind
    raise SecretMalformed(f"it does not start with {PREFIX} or {PRIVATE_PREFIX}")


def key_bytes(secret: str) -> bytes:
    """Return the key of a secret: of ``v1`` the shared key, of ``v1a`` the seed.

    Raises:
        SecretMalformed: no known prefix, not base64, a key of a wrong size, or a seed beside the
            public key of another seed.
    """
    kind = kind_of(secret)
    prefix = _PREFIXES[kind]
    try:
        key = base64.b64decode(secret.removeprefix(prefix), validate=True)
    except ValueError:
        # The cause could carry the text into a log.
        raise SecretMalformed(f"no base64 after {prefix}") from None
    if kind is SecretKind.V1:
        if len(key) not in KEY_SIZES:
            raise SecretMalformed(f"{len(key)} bytes, not {KEY_SIZES[0]} to {KEY_SIZES[-1]}")
        return key
    if len(key) != PAIR_BYTES:
        raise SecretMalformed(f"{len(key)} bytes, not {PAIR_BYTES}")
    seed = key[:SEED_BYTES]
    if _public_bytes(seed) != key[SEED_BYTES:]:
        raise SecretMalformed("the public key belongs to another seed")
    return seed


def public_key(secret: str) -> str:
    """Return ``whpk_…``, with which a receiver verifies the signatures of a ``v1a`` secret.

    Raises:
        SecretMalformed: the text is no ``v1a`` secret.
    """
    if kind_of(secret) is not SecretKind.V1A:
        raise SecretMalformed(f"it does not start with {PRIVATE_PREFIX}: it has no public key")
    return PUBLIC_PREFIX + base64.b64encode(_public_bytes(key_bytes(secret))).decode()


def encrypt(secret: str, *, webhook_id: WebhookId, keys: KeyRing) -> str:
    """Return the form of a secret in the database, for the row of one webhook."""
    return keys.encrypt(secret, context=_context(webhook_id))


def decrypt(stored: str, *, webhook_id: WebhookId, keys: KeyRing) -> str:
    """Return the text form of a secret in the database, encrypted or not.

    Raises:
        DecryptionFailed: no key decrypts it, or it belongs to another webhook.
    """
    if stored.startswith(PREFIX):
        return stored
    return keys.decrypt(stored, context=_context(webhook_id)).decode()


def _context(webhook_id: WebhookId) -> str:
    return f"webhooks.secret:{webhook_id}"


def _public_bytes(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
