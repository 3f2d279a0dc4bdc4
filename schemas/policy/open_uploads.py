"""Whether an upload accepts chunks, and whether it can be finalized."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from schemas.errors import DomainError, ErrorCode, FileDigestMismatch
from schemas.ids import UploadId
from schemas.lifecycle import UploadStatus

MISSING_NAMED_MAX: Final = 20
"""Most missing chunks that an error names; the manifest has all of them."""


class UploadNotFound(DomainError):
    """The upload does not exist or belongs to another tenant."""

    code = ErrorCode.UPLOAD_NOT_FOUND

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"there is no upload {upload_id}")


class UploadNotOpen(DomainError):
    """The upload accepts no chunks and cannot be finalized."""

    code = ErrorCode.UPLOAD_NOT_OPEN

    def __init__(self, upload_id: UploadId, *, status: str) -> None:
        super().__init__(f"upload {upload_id} is not open: it is {status}")


class UploadExpired(DomainError):
    """The time to send the upload is over."""

    code = ErrorCode.UPLOAD_EXPIRED

    def __init__(self, upload_id: UploadId, *, expired_at: datetime) -> None:
        super().__init__(f"upload {upload_id} expired at {expired_at.isoformat()}")


class UploadIncomplete(DomainError):
    """Chunks are missing."""

    code = ErrorCode.UPLOAD_INCOMPLETE
    retryable = True

    def __init__(self, upload_id: UploadId, *, missing: Sequence[int], chunk_count: int) -> None:
        named = ", ".join(str(index) for index in missing[:MISSING_NAMED_MAX])
        more = len(missing) - MISSING_NAMED_MAX
        super().__init__(
            f"upload {upload_id} lacks {len(missing)} of {chunk_count} chunks: {named}"
            + (f" and {more} more" if more > 0 else "")
        )


def check_open(upload_id: UploadId, *, status: str, expires_at: datetime, now: datetime) -> None:
    """Check that an upload accepts chunks and can be finalized.

    Raises:
        UploadExpired: the upload has expired, even if no sweep has changed its status yet.
        UploadNotOpen: the upload is finalized, stored, failed or cancelled.
    """
    if status == UploadStatus.EXPIRED or (status == UploadStatus.OPEN and expires_at <= now):
        raise UploadExpired(upload_id, expired_at=expires_at)
    if status != UploadStatus.OPEN:
        raise UploadNotOpen(upload_id, status=status)


def check_all_stored(upload_id: UploadId, *, stored: Iterable[int], chunk_count: int) -> None:
    """Check that every chunk is stored.

    Raises:
        UploadIncomplete: chunks are missing.
    """
    missing = missing_of(stored, chunk_count=chunk_count)
    if missing:
        raise UploadIncomplete(upload_id, missing=missing, chunk_count=chunk_count)


def missing_of(stored: Iterable[int], *, chunk_count: int) -> list[int]:
    """Return the indexes that are not stored; compares sets, because a sum could agree by chance."""
    present = frozenset(stored)
    return [index for index in range(chunk_count) if index not in present]


def check_digest(upload_id: UploadId, *, declared: str | None, again: str | None) -> None:
    """Compare the sha256 that was declared at create with that of finalize, if both are known.

    Raises:
        FileDigestMismatch: they differ.
    """
    if None not in (declared, again) and declared != again:
        raise FileDigestMismatch(f"upload {upload_id} was declared with another sha256")
