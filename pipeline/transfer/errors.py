"""Why a transfer stops although nothing is wrong with it."""

from schemas.errors import DomainError, ErrorCode


class LeaseLost(DomainError):
    """Another worker has this upload now; everything in the store belongs to it."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("another worker has taken the upload over")


class TransferCancelled(DomainError):
    """The client wants the upload no more; nothing of it is to remain."""

    code = ErrorCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("the upload was cancelled")
