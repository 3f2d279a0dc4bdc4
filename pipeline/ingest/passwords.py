"""The password that a client gave for the document of an upload."""

from typing import Final

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from schemas.errors import DomainError, ErrorCode
from schemas.ids import UploadId
from schemas.key_ring import DecryptionFailed, KeyRing
from schemas.policy import document_passwords
from schemas.tables.base import table_of
from schemas.tables.document_passwords import DocumentPassword

_PASSWORDS: Final = table_of(DocumentPassword)
_SECRET: Final[Select[str]] = select(_PASSWORDS.c.secret).where(
    _PASSWORDS.c.upload_id == bindparam("upload_id")
)


class PasswordUnreadable(DomainError):
    """No key decrypts the password; the event waits until an operator adds the key again."""

    code = ErrorCode.INTERNAL
    retryable = True
    needs_operator = True

    def __init__(self, reason: DecryptionFailed) -> None:
        super().__init__(f"the password of the document cannot be decrypted: {reason}")


def password_of(session: Session, upload_id: UploadId, key_ring: KeyRing) -> str | None:
    """Return the password of an upload's document; None if there is none, or no longer.

    Raises:
        PasswordUnreadable: no key of `SECRET_KEYS` decrypts it.
    """
    stored = session.scalar(_SECRET, {"upload_id": upload_id})
    if stored is None:
        return None
    try:
        return document_passwords.decrypt(stored, upload_id=upload_id, keys=key_ring)
    except DecryptionFailed as error:
        raise PasswordUnreadable(error) from error
