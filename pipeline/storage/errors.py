"""What can go wrong with the object store, in words that name no store.

Adapters translate at their border. A message carries the call, the store's
own code and the HTTP status: never a header, a body, a URL or a key, because
stores echo the string to sign and the access key id in their errors.
"""

from schemas.errors import DomainError, ErrorCode
from schemas.object_keys import ObjectKey


class StoreFailed(DomainError):
    """A call of the object store did not do what it was asked; the subclasses say why."""


class StoreUnavailable(StoreFailed):
    """The store did not answer, answered too late, or asked to slow down."""

    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True

    def __init__(self, call: str, *, reason: str) -> None:
        super().__init__(f"the object store did not serve {call}: {reason}")


class RangeEndsEarly(StoreUnavailable):
    """The object ends inside the range: it is not the one that was written there, or not yet."""

    def __init__(self, size_bytes: int, *, missing_bytes: int) -> None:
        super().__init__(
            "read", reason=f"the object has {missing_bytes} of {size_bytes} bytes too few"
        )


class ObjectReplaced(StoreUnavailable):
    """There is another object than the one that was to be read."""

    def __init__(self) -> None:
        super().__init__("read", reason="the object has another ETag than the one that is meant")


class BodyAltered(StoreUnavailable):
    """The store received other bytes than were announced, and kept none of them."""


class StoreMisconfigured(StoreFailed):
    """The store refuses us, whatever we ask: the bucket, the credentials or the quota is at fault.

    Retryable: it is an operator who has to act, and no upload may be lost until then.
    """

    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True
    needs_operator = True

    def __init__(self, call: str, *, reason: str) -> None:
        super().__init__(f"the object store refuses {call}: {reason}")


class StoreRejected(StoreFailed):
    """The store understood the request and refuses it; asking again changes nothing."""

    code = ErrorCode.STORE_REJECTED

    def __init__(self, call: str, *, reason: str) -> None:
        super().__init__(f"the object store rejected {call}: {reason}")


class ObjectMissing(DomainError):
    """There is no object at this key."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(f"there is no object {key}")


class ObjectExists(DomainError):
    """Another object is at this key already, and stays."""

    code = ErrorCode.STORED_OBJECT_MISMATCH

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(f"there is an object {key} already")


class CopyUnsupported(StoreFailed):
    """The store cannot make a part out of another object."""

    code = ErrorCode.STORE_REJECTED

    def __init__(self) -> None:
        super().__init__("the object store does not copy parts")


class MultipartGone(DomainError):
    """The multipart upload was completed, aborted or expired meanwhile.

    Retryable: the next attempt looks whether the object is there and starts
    anew if it is not.
    """

    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(f"the multipart upload of {key} is no longer open")


class PartReplaced(DomainError):
    """A part is not the one it was when it was stored, or not there.

    Retryable: the next attempt looks at what is stored, and sends the part again.
    """

    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(f"a part of {key} is not the one that was stored")
