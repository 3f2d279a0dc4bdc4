"""The secret of a webhook: its text form, and the form in the database.

The column `webhooks.secret` holds a token of the key ring. Rows that were written
before there were keys hold the text form, until `waybill secrets rotate`.
"""

from typing import Final

from schemas.ids import WebhookId
from schemas.key_ring import KeyRing

PREFIX: Final = "whsec_"  # not secret


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
