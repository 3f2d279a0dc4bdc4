"""Which of the things found in staging and in the store belong to nobody.

Only names this system gives are judged. Whatever else lies in the directory or
in the bucket is somebody else's, and stays.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from schemas import object_keys
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import UploadStatus

PROBES: Final = f"{object_keys.STAGED}.probe/"
"""Where a process tries out what the store can do; it removes its objects itself, unless it dies."""

STAGED_WHILE: Final = frozenset({UploadStatus.OPEN, UploadStatus.FINALIZED})
"""An upload in any other state, or none we know, has nothing in staging that is still needed."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What the job of an upload says about its multipart upload."""

    is_active: bool
    multipart_id: str | None
    lease_is_live: bool


def upload_of_file(name: str) -> UploadId | None:
    """Return the upload a file of the staging directory is named for; None for any other name."""
    upload_id = _uuid(name)
    return None if upload_id is None else UploadId(upload_id)


def upload_of_staged(key: str) -> UploadId | None:
    """Return the upload a staged chunk belongs to; None for any key we would not have given."""
    owner = _owner(key)
    if owner is None or not key.startswith(object_keys.staged(*owner)):
        return None
    return owner[1]


def upload_of_original(key: str) -> UploadId | None:
    """Return the upload an object belongs to; None for any key we would not have given."""
    owner = _owner(key)
    if owner is None or key != object_keys.original(*owner):
        return None
    return owner[1]


def is_probe(key: str) -> bool:
    return key.startswith(PROBES)


def is_settled(at: datetime, *, now: datetime, grace: timedelta) -> bool:
    """Whether something is old enough that whoever made it has also told the database."""
    return now - at > grace


def is_left_in_staging(status: UploadStatus | None) -> bool:
    """Whether staged bytes are an orphan, by their upload's status; None: there is no such upload."""
    return status not in STAGED_WHILE


def is_left_unfinished(multipart_id: str, transfer: Transfer | None) -> bool:
    """Whether a multipart upload is an orphan, by its upload's job; None: there is no such job.

    While a worker holds the lease it may have begun one it has not written down yet.
    """
    if transfer is None or not transfer.is_active:
        return True
    return multipart_id != transfer.multipart_id and not transfer.lease_is_live


def _owner(key: str) -> tuple[TenantId, UploadId] | None:
    upload_id = object_keys.upload_of(key)
    tenant_id = _uuid(key.split("/")[1]) if upload_id else None
    if upload_id is None or tenant_id is None:
        return None
    return TenantId(tenant_id), upload_id


def _uuid(text: str) -> UUID | None:
    """Read an id in the one form we write; `uuid.UUID` takes many more."""
    try:
        read = UUID(text)
    except ValueError:
        return None
    return read if str(read) == text else None
