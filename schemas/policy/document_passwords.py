"""The password of a document, and its form in the database.

The column `document_passwords.secret` holds a token of the key ring, bound to the upload.
"""

from schemas.ids import UploadId
from schemas.key_ring import KeyRing


def encrypt(password: str, *, upload_id: UploadId, keys: KeyRing) -> str:
    """Return the form of a password in the database, for the row of one upload."""
    return keys.encrypt(password, context=_context(upload_id))


def decrypt(stored: str, *, upload_id: UploadId, keys: KeyRing) -> str:
    """Return the password of a token in the database.

    Raises:
        DecryptionFailed: no key decrypts it, or it belongs to another upload.
    """
    return keys.decrypt(stored, context=_context(upload_id)).decode()


def _context(upload_id: UploadId) -> str:
    return f"document_passwords.secret:{upload_id}"
