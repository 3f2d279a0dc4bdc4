"""Encrypts secrets before they are written to the database, and signs messages, with `SECRET_KEYS`.

Secrets are encrypted with AES-256-GCM. A token is ``v1.<key id>.<base64url of nonce, ciphertext and tag>``. It is bound to its
context: copied to another row, it does not decrypt. Messages are signed with HMAC-SHA256 and a key that is derived
from each key: a signature reveals nothing about the key that encrypts.
"""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
KEY_ID_BYTES: Final = 8
SIGNATURE_BYTES: Final = KEY_ID_BYTES + 32

_TOKEN: Final = re.compile(r"v1\.([0-9a-f]{16})\.([A-Za-z0-9_-]+={0,2})")
_URL_SAFE_TO_STANDARD: Final = str.maketrans("-_", "+/")


class KeyMalformed(ValueError):
    """A text is no list of keys; the message does not contain it."""


class DecryptionFailed(Exception):
    """A token cannot be decrypted; the message contains no secret."""


class KeyMissing(DecryptionFailed):
    """The key that encrypted the token is not in the key ring."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"SECRET_KEYS has no key with the id {key_id}")
        self.key_id = key_id


class TokenDamaged(DecryptionFailed):
    """The token is malformed or changed, or it was made in another context."""


class KeyRing:
    """Keys that decrypt and verify; the first key also encrypts and signs."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Create a key ring.

        Args:
            keys: at least one key of 32 bytes.

        Raises:
            KeyMalformed: there is no key, or a key has another size.
        """
        if not keys:
            raise KeyMalformed("there is no key")
        for position, key in enumerate(keys, start=1):
            if len(key) != KEY_BYTES:
                raise KeyMalformed(f"key {position} has {len(key)} bytes, not {KEY_BYTES}")
        self._ciphers = {_id_of(key): AESGCM(key) for key in keys}
        self._signing_keys = {_id_of(key): _signing_key(key) for key in keys}
        self._first_id = _id_of(keys[0])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the ring of comma-separated keys, each in base64 (standard or URL-safe).

        Raises:
            KeyMalformed: there is no key, or a key is not base64 of 32 bytes.
        """
        parts = [part.strip() for part in text.split(",")]
        return cls([_decoded(part, position) for position, part in enumerate(parts, start=1)])

    @property
    def prefix(self) -> str:
        """The start of every token that the first key encrypts, and of no other token."""
        return f"v1.{self._first_id}."

    def encrypt(self, secret: str | bytes, *, context: str) -> str:
        """Return a token of the first key; two tokens of one secret differ.

        Args:
            secret: the secret; a text is encoded in UTF-8.
            context: names the place of the token, such as its column and the id of its row.
        """
        plain = secret.encode() if isinstance(secret, str) else secret
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self._first_id].encrypt(nonce, plain, context.encode())
        return self.prefix + base64.urlsafe_b64encode(nonce + sealed).decode()

    def decrypt(self, token: str, *, context: str) -> bytes:
        """Return the secret of a token.

        Args:
            token: from `encrypt`, with any key of the ring.
            context: equal to the context of `encrypt`.

        Raises:
            KeyMissing: the key of the token is not in the ring.
            TokenDamaged: the token is malformed or changed, or has another context.
        """
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            raise TokenDamaged("the text is not an encrypted secret")
        key_id, encoded = parts.groups()
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise KeyMissing(key_id)
        try:
            sealed = base64.urlsafe_b64decode(encoded)
            return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise TokenDamaged("the secret was changed, or encrypted for another row") from None

    def sign(self, message: bytes, *, context: str) -> bytes:
        """Return the signature of the first key, `SIGNATURE_BYTES` long.

        Args:
            message: the message.
            context: names the kind of the message; another kind has another signature.
        """
        return bytes.fromhex(self._first_id) + self._mac(self._first_id, message, context)

    def is_signed(self, message: bytes, signature: bytes, *, context: str) -> bool:
        """Return whether a key of the ring has made the signature, for this message and context."""
        key_id = signature[:KEY_ID_BYTES].hex()
        return key_id in self._signing_keys and hmac.compare_digest(
            signature[KEY_ID_BYTES:], self._mac(key_id, message, context)
        )

    def _mac(self, key_id: str, message: bytes, context: str) -> bytes:
        signed = context.encode() + b"\0" + message
        return hmac.digest(self._signing_keys[key_id], signed, "sha256")


def _signing_key(key: bytes) -> bytes:
    return HKDFExpand(SHA256(), length=KEY_BYTES, info=b"waybill signing key").derive(key)


def _id_of(key: bytes) -> str:
    # One-way: a token shows which key encrypted it, and nothing about the key.
    return hashlib.sha256(b"waybill key id" + key).hexdigest()[:16]


def _decoded(part: str, position: int) -> bytes:
    try:
        return base64.b64decode(part.translate(_URL_SAFE_TO_STANDARD), validate=True)
    except ValueError:
        # The cause could carry the key into a log.
        raise KeyMalformed(f"key {position} is not base64") from None
