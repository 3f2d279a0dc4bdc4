"""Errors of batches and of their lines."""

from datetime import timedelta

from schemas.errors import DomainError, ErrorCode
from schemas.ids import BatchId, UploadId
from schemas.lifecycle import BatchStatus


class BatchNotFound(DomainError):
    """The batch does not exist, has expired, or belongs to another tenant."""

    code = ErrorCode.BATCH_NOT_FOUND

    def __init__(self, batch_id: BatchId) -> None:
        super().__init__(f"there is no batch {batch_id}")


class BatchEnded(DomainError):
    """The batch has ended: there is nothing to pause, resume or cancel."""

    code = ErrorCode.BATCH_ENDED

    def __init__(self, batch_id: BatchId, *, status: BatchStatus) -> None:
        super().__init__(f"batch {batch_id} is {status}")


class BatchTooLarge(DomainError):
    """The body has more lines or bytes than a batch may have; nothing of it is kept."""

    code = ErrorCode.BATCH_TOO_LARGE

    def __init__(self, *, limit: int, unit: str) -> None:
        super().__init__(f"a batch has at most {limit} {unit}; send the rest as another batch")


class TooManyBatches(DomainError):
    """Too many batches of the tenant have not ended; one of them has to end first."""

    code = ErrorCode.TOO_MANY_BATCHES
    retryable = True
    retry_after = timedelta(minutes=1)

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"{limit} batches of yours have not ended, and no more are allowed")


class ReceptionLost(DomainError):
    """The batch expired while its body arrived: the gateway could not reach the database."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("the lines could not be stored in time; send the batch again")


class LineTooLong(DomainError):
    """A line has more bytes than allowed; it is not read."""

    code = ErrorCode.LINE_TOO_LONG

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"a line has at most {limit} bytes")


class LineRepeated(DomainError):
    """An earlier line of the batch names the same upload."""

    code = ErrorCode.LINE_REPEATED

    def __init__(self, upload_id: UploadId, *, line: int) -> None:
        super().__init__(f"line {line} names upload {upload_id} already")
