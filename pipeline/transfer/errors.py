"""Errors that stop a transfer although the upload itself is sound."""

from schemas.errors import DomainError, ErrorCode


class LeaseLost(DomainError):
    """Another worker has taken the transfer over; this worker must not change anything in the store."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("another worker has taken the upload over")


class TransferCancelled(DomainError):
    """The client cancelled the upload; everything of the upload is deleted."""

    code = ErrorCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("the upload was cancelled")
