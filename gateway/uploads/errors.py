"""Errors that several operations on uploads raise."""

from schemas.errors import DomainError, ErrorCode
from schemas.ids import UploadId


class NotFinalized(DomainError):
    """The upload has no job, because it is not finalized."""

    code = ErrorCode.JOB_NOT_FOUND

    def __init__(self, upload_id: UploadId, *, status: str) -> None:
        super().__init__(f"upload {upload_id} has no job: it is {status}")


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
