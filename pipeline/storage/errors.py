"""Errors of single calls of the object store, the same for every kind of store."""

from schemas.errors import DomainError, ErrorCode, StoreFailed, StoreUnavailable
from schemas.object_keys import ObjectKey


class RangeEndsEarly(StoreUnavailable):
    """The object ends inside the range: it was replaced, or the store returned an old version."""

    def __init__(self, size_bytes: int, *, missing_bytes: int) -> None:
        super().__init__("read", reason=f"the object lacks {missing_bytes} of {size_bytes} bytes")


class ObjectReplaced(StoreUnavailable):
    """The object at the key was replaced by another object."""

    def __init__(self) -> None:
        super().__init__("read", reason="the object has another ETag than expected")


class ObjectMissing(DomainError):
    """There is no object at this key."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(f"there is no object {key}")


class ObjectExists(DomainError):
    """Another object exists at this key; it is kept."""

    code = ErrorCode.STORED_OBJECT_MISMATCH

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(f"object {key} exists already")


class CopyUnsupported(StoreFailed):
    """The store cannot make a part from another object."""

    code = ErrorCode.STORE_REJECTED

    def __init__(self) -> None:
        super().__init__("the object store does not copy parts")


class MultipartGone(DomainError):
    """The multipart upload was completed or aborted, or expired.

    Retryable: the next attempt checks whether the object exists, and starts again if not.
    """

    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(f"the multipart upload of {key} is no longer open")


class PartReplaced(DomainError):
    """A part is missing, or differs from the part that was stored.

    Retryable: the next attempt lists the stored parts and sends the part again.
    """

    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(f"a part of {key} differs from the part that was stored")
