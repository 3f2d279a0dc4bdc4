"""Errors that clients see, and their stable codes.

The gateway maps codes to HTTP statuses (`gateway/http/problems.py`); a worker
retries an event according to `DomainError.retryable`.
"""

from datetime import timedelta
from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable, documented codes; clients may branch on them."""

    # authentication and requests
    UNAUTHENTICATED = "unauthenticated"
    SCOPE_MISSING = "scope_missing"
    INVALID_REQUEST = "invalid_request"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_WAITS = "too_many_waits"
    BODY_TOO_SLOW = "body_too_slow"
    TOO_MANY_BODIES = "too_many_bodies"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    BODY_DIGEST_MISMATCH = "body_digest_mismatch"
    PRECONDITION_FAILED = "precondition_failed"

    # uploads
    UPLOAD_NOT_FOUND = "upload_not_found"
    UPLOAD_NOT_OPEN = "upload_not_open"
    UPLOAD_EXPIRED = "upload_expired"
    UPLOAD_INCOMPLETE = "upload_incomplete"
    UPLOAD_ALREADY_SETTLED = "upload_already_settled"
    FILE_TOO_LARGE = "file_too_large"
    CHUNK_INDEX_OUT_OF_RANGE = "chunk_index_out_of_range"
    CHUNK_SIZE_MISMATCH = "chunk_size_mismatch"
    CHUNK_DIGEST_MISMATCH = "chunk_digest_mismatch"
    CHUNK_CONFLICT = "chunk_conflict"
    CHUNK_IN_PROGRESS = "chunk_in_progress"
    DIGEST_INVALID = "digest_invalid"
    MANIFEST_MISMATCH = "manifest_mismatch"
    FILE_DIGEST_MISMATCH = "file_digest_mismatch"
    STAGING_FULL = "staging_full"
    LENGTH_REQUIRED = "length_required"
    QUOTA_EXCEEDED = "quota_exceeded"
    TOO_MANY_OPEN_UPLOADS = "too_many_open_uploads"
    STAGED_BYTES_EXCEEDED = "staged_bytes_exceeded"
    TYPE_NOT_ALLOWED = "type_not_allowed"
    TOO_MANY_WAITING = "too_many_waiting"
    SYSTEM_BUSY = "system_busy"
    REFERENCE_REFUSED = "reference_refused"

    # jobs, documents, webhooks
    JOB_NOT_FOUND = "job_not_found"
    JOB_NOT_CANCELLABLE = "job_not_cancellable"
    JOB_NOT_RETRYABLE = "job_not_retryable"
    JOB_SOURCE_GONE = "job_source_gone"
    JOB_BUSY = "job_busy"
    DOCUMENT_NOT_FOUND = "document_not_found"
    DOCUMENT_NOT_READY = "document_not_ready"
    DOCUMENT_BUSY = "document_busy"
    WEBHOOK_NOT_FOUND = "webhook_not_found"
    WEBHOOK_URL_REFUSED = "webhook_url_refused"
    EVENT_TYPE_NOT_FOUND = "event_type_not_found"
    TOO_MANY_WEBHOOKS = "too_many_webhooks"
    WEBHOOK_DISABLED = "webhook_disabled"
    WEBHOOK_SECRET_NOT_FOUND = "webhook_secret_not_found"  # noqa: S105  # a code
    WEBHOOK_SECRET_IN_USE = "webhook_secret_in_use"  # noqa: S105  # a code
    TOO_MANY_WEBHOOK_SECRETS = "too_many_webhook_secrets"  # a code
    WEBHOOK_BUSY = "webhook_busy"
    DELIVERY_NOT_FOUND = "delivery_not_found"
    DELIVERY_EXHAUSTED = "delivery_exhausted"
    EVENT_NOT_FOUND = "event_not_found"
    EVENT_EXPIRED = "event_expired"
    CURSOR_EXPIRED = "cursor_expired"
    EXPORT_NOT_FOUND = "export_not_found"
    EXPORT_NOT_READY = "export_not_ready"
    EXPORT_EXPIRED = "export_expired"
    SEARCH_QUERY_INVALID = "search_query_invalid"
    SEARCH_TIMEOUT = "search_timeout"
    BATCH_NOT_FOUND = "batch_not_found"
    BATCH_ENDED = "batch_ended"
    BATCH_TOO_LARGE = "batch_too_large"
    TOO_MANY_BATCHES = "too_many_batches"
    LINE_TOO_LONG = "line_too_long"
    LINE_REPEATED = "line_repeated"

    # transfer
    STAGING_MISSING = "staging_missing"
    STAGING_CORRUPT = "staging_corrupt"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_REJECTED = "store_rejected"
    REFERENCE_MISSING = "reference_missing"
    STORED_OBJECT_MISMATCH = "stored_object_mismatch"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    CANCELLED = "cancelled"

    # malware scan
    MALWARE_FOUND = "malware_found"
    SCAN_PENDING = "scan_pending"
    SCAN_FAILED = "scan_failed"
    DOCUMENT_UNSCANNABLE = "document_unscannable"

    # exports
    EXPORT_TOO_LARGE = "export_too_large"

    # reading a document
    DOCUMENT_EMPTY = "document_empty"
    DOCUMENT_CORRUPT = "document_corrupt"
    DOCUMENT_ENCRYPTED = "document_encrypted"
    DOCUMENT_LIMIT = "document_limit"
    DOCUMENT_TIMEOUT = "document_timeout"
    DOCUMENT_OUT_OF_MEMORY = "document_out_of_memory"
    DOCUMENT_CRASHED = "document_crashed"
    DOCUMENT_QUARANTINED = "document_quarantined"
    DOCUMENT_DUPLICATE = "document_duplicate"


class DomainError(Exception):
    """An error that is reported to the client; its text is safe to show.

    Attributes:
        code: stable code.
        retryable: whether the same request or event may succeed later.
        needs_operator: neither the client nor a retry can remove the cause; an
            event waits until an operator has acted.
        caused_by_client: the client's file or request is the cause, and no operator has to act;
            a worker logs such an end at level info, every other end at level error.
        retry_after: when a client should repeat the request; None if the code alone decides.
    """

    code: ErrorCode = ErrorCode.INTERNAL
    retryable: bool = False
    needs_operator: bool = False
    caused_by_client: bool = False
    retry_after: timedelta | None = None


class StagingMissing(DomainError):
    """The staged bytes of an upload are gone; the client must upload the file again."""

    code = ErrorCode.STAGING_MISSING


class FileDigestMismatch(DomainError):
    """The declared sha256 of a file contradicts an earlier declaration or the bytes."""

    code = ErrorCode.FILE_DIGEST_MISMATCH
    caused_by_client = True


class StoreFailed(DomainError):
    """A call of the object store failed; the subclasses say why.

    The message holds the call, the store's code and the HTTP status. It holds no header, body,
    URL or key: stores echo the string to sign and the access key id in their errors.
    """


class StoreUnavailable(StoreFailed):
    """The store did not answer, answered too late, or asked to slow down."""

    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True

    def __init__(self, call: str, *, reason: str) -> None:
        super().__init__(f"the object store did not serve {call}: {reason}")


class BodyAltered(StoreUnavailable):
    """The store received other bytes than were announced, and kept none of them."""


class StoreMisconfigured(StoreFailed):
    """The store refuses every request: the bucket, the credentials or the quota is wrong.

    Retryable, because no upload may be lost before an operator acts.
    """

    code = ErrorCode.STORE_REJECTED
    retryable = True
    needs_operator = True

    def __init__(self, call: str, *, reason: str) -> None:
        super().__init__(f"the object store refuses {call}: {reason}")


class StoreRejected(StoreFailed):
    """The store understood the request and refuses it; a repetition changes nothing."""

    code = ErrorCode.STORE_REJECTED

    def __init__(self, call: str, *, reason: str) -> None:
        super().__init__(f"the object store rejected {call}: {reason}")
