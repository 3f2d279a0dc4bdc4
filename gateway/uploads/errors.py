"""Errors that several operations on uploads raise, and the check that an upload is open."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from schemas.errors import DomainError, ErrorCode
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


class NotFinalized(DomainError):
    """The upload has no job, because it is not finalized."""

    code = ErrorCode.JOB_NOT_FOUND

    def __init__(self, upload_id: UploadId, *, status: str) -> None:
        super().__init__(f"upload {upload_id} has no job: it is {status}")


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


class ManifestMismatch(DomainError):
    """The declared chunks differ from the stored chunks, or are in another order."""

    code = ErrorCode.MANIFEST_MISMATCH


class UploadAlreadySettled(DomainError):
    """The upload has ended and can no longer be cancelled."""

    code = ErrorCode.UPLOAD_ALREADY_SETTLED

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(
            f"upload {upload_id} has ended and can no longer be cancelled;"
            " `?purge=true` deletes a stored upload"
        )


class DocumentStillBeingRead(DomainError):
    """A worker still reads the document of a cancelled upload; it stops within moments."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(
            f"upload {upload_id} is cancelled, but a worker still reads its document; try again soon"
        )


class ChunkIndexOutOfRange(DomainError):
    """The upload has no chunk of this index."""

    code = ErrorCode.CHUNK_INDEX_OUT_OF_RANGE

    def __init__(self, index: int, *, chunk_count: int) -> None:
        super().__init__(f"there is no chunk {index}: the upload has {chunk_count}, from 0")


class ChunkSizeMismatch(DomainError):
    """The body does not have the size of its chunk."""

    code = ErrorCode.CHUNK_SIZE_MISMATCH

    def __init__(self, index: int, *, expected: int, actual: int) -> None:
        super().__init__(f"chunk {index} has {expected} bytes, not {actual}")


class ChunkConflict(DomainError):
    """The chunk is stored with other content, which stays."""

    code = ErrorCode.CHUNK_CONFLICT

    def __init__(self, index: int, *, stored_sha256: bytes) -> None:
        super().__init__(
            f"chunk {index} is stored with other content, sha256 {stored_sha256.hex()}"
        )


class ChunkInProgress(DomainError):
    """Another request is still sending this chunk."""

    code = ErrorCode.CHUNK_IN_PROGRESS
    retryable = True

    def __init__(self, index: int) -> None:
        super().__init__(f"another request is still sending chunk {index}")


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
