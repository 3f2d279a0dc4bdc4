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


class StoreUnavailable(DomainError):
    """The object store did not confirm a request; nothing is acked."""

    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True

    def __init__(self, call: str, *, reason: str) -> None:
        super().__init__(f"the object store is unavailable: {call}: {reason}")


class StoreRejected(DomainError):
    """The object store refuses us; an operator has to look at its settings."""

    code = ErrorCode.STORE_REJECTED
    needs_operator = True

    def __init__(self, call: str, *, reason: str) -> None:
        super().__init__(f"the object store refused: {call}: {reason}")
