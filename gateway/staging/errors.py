"""Errors of staging that clients get."""

from schemas.errors import DomainError, ErrorCode
from schemas.ids import UploadId


class StagingFull(DomainError):
    """The staging disk has too little free space; the same request may succeed later."""

    code = ErrorCode.STAGING_FULL
    retryable = True

    def __init__(self) -> None:
        super().__init__("there is not enough room for this upload at the moment")


class StagingElsewhere(DomainError):
    """The upload was created with the other `STAGING`, for which this gateway has no settings."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self, upload_id: UploadId, *, kind: str) -> None:
        super().__init__(
            f"upload {upload_id} is staged in {kind!r}, which this gateway cannot reach at the moment"
        )
