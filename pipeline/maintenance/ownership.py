"""Which of the things found in staging and in the store belong to nobody.

Only names this system gives are judged. Whatever else lies in the directory or
in the bucket is somebody else's, and stays.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.lifecycle import UploadStatus

STAGED_WHILE: Final = frozenset({UploadStatus.OPEN, UploadStatus.FINALIZED})
"""An upload in any other state, or none we know, has nothing in staging that is still needed."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What the job of an upload says about its multipart upload."""

    is_active: bool
    multipart_id: str | None
    lease_is_live: bool


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
