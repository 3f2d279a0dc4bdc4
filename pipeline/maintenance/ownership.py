"""Decides which files, objects and multipart uploads are orphans.

Only names that this system generates are judged. Other files and objects are never deleted.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.lifecycle import UploadStatus

STATUSES_WITH_STAGING: Final = frozenset({UploadStatus.OPEN, UploadStatus.FINALIZED})
"""Uploads in any other status, and unknown uploads, do not need their staged bytes."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The facts that the job of an upload records about its multipart upload."""

    is_active: bool
    multipart_id: str | None
    lease_is_live: bool


def is_old(modified_at: datetime, *, now: datetime, grace: timedelta) -> bool:
    """Return whether a file or object is so old that its owner must have recorded it by now."""
    return now - modified_at > grace


def is_left_in_staging(status: UploadStatus | None) -> bool:
    """Return whether staged bytes are orphans; the status of an unknown upload is None."""
    return status not in STATUSES_WITH_STAGING


def is_left_unfinished(multipart_id: str, transfer: Transfer | None) -> bool:
    """Return whether a multipart upload is an orphan, by its upload's job; None for an unknown job.

    A worker that holds the lease may have created a multipart upload that is not recorded yet.
    """
    if transfer is None or not transfer.is_active:
        return True
    return multipart_id != transfer.multipart_id and not transfer.lease_is_live
