"""The password of an upload's document: encrypted in its row, and never in a hash."""

from typing import TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from schemas.api.documents import ReprocessDocument
from schemas.api.submissions import SubmitReference
from schemas.api.uploads import CreateUpload
from schemas.ids import UploadId
from schemas.key_ring import KeyRing
from schemas.policy import document_passwords
from schemas.tables.document_passwords import DocumentPassword

Request = TypeVar("Request", CreateUpload, SubmitReference, ReprocessDocument)


def keep(
    session: AsyncSession,
    password: str | msgspec.UnsetType | None,
    *,
    upload_id: UploadId,
    keys: KeyRing,
) -> None:
    """Add the password of a new upload, whose row is in the database; do nothing without one."""
    if password:
        session.add(
            DocumentPassword(
                upload_id=upload_id,
                secret=document_passwords.encrypt(password, upload_id=upload_id, keys=keys),
            )
        )


def signed(password: str | msgspec.UnsetType | None, *, keys: KeyRing) -> str | msgspec.UnsetType:
    """Return what stands for a password in the hash of a request.

    A plain hash, which the database keeps longer than the password, would allow guesses. Once
    `SECRET_KEYS` has another first key, an earlier request with a password counts as another
    request.
    """
    return keys.sign(password.encode(), context="password").hex() if password else msgspec.UNSET


def hashable(request: Request, *, keys: KeyRing) -> Request:
    """Return the request to bind an `Idempotency-Key` to, with its password signed."""
    return msgspec.structs.replace(request, password=signed(request.password, keys=keys))
