"""What can be wrong with staging, as clients are told."""

from schemas.errors import DomainError, ErrorCode
from schemas.ids import UploadId


class StagingFull(DomainError):
    """There is no room on the disk; later there may be."""

    code = ErrorCode.STAGING_FULL
    retryable = True

    def __init__(self) -> None:
        super().__init__("there is not enough room for this upload at the moment")


class StagingElsewhere(DomainError):
    """The upload was begun with the other `STAGING`, which this gateway has no settings for."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self, upload_id: UploadId, *, kind: str) -> None:
        super().__init__(
            f"upload {upload_id} is staged in {kind!r}, which this gateway cannot reach at the moment"
        )
