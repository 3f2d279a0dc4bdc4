"""What the store's refusals mean, in our words."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeAlias

from botocore import exceptions as botocore
from botocore.parsers import ResponseParserError

from pipeline.storage.errors import (
    BodyAltered,
    CopyUnsupported,
    MultipartGone,
    ObjectExists,
    ObjectMissing,
    PartReplaced,
    StoreFailed,
    StoreMisconfigured,
    StoreRejected,
    StoreUnavailable,
)
from pipeline.storage.port import Multipart, ObjectRange
from schemas.errors import DomainError
from schemas.object_keys import ObjectKey

Meanings: TypeAlias = Mapping[str, DomainError]
"""What a code means in answer to one call, where it is more than a refusal."""

NOTHING_SPECIAL: Final[Meanings] = {}

# Some stores name the key where the upload is gone; HEAD has no body to name anything in.
MISSING_CODES: Final = frozenset({"NoSuchUpload", "NoSuchKey", "404"})
UNKNOWN_CALL_CODES: Final = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
ALTERED_BODY_CODES: Final = frozenset({"BadDigest", "IncompleteBody"})
RETRYABLE_CODES: Final = frozenset(
    {
        "ConditionalRequestConflict",  # status 409: another write of the same key is under way
        "InternalError",
        "OperationAborted",  # status 409: another request on the same key is under way
        "RequestTimeout",  # status 400
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
    }
)
RETRYABLE_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
# Said of us, not of the request. Swift also calls a bucket missing while it cannot look it up.
MISCONFIGURATION_CODES: Final = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "NoSuchBucket",
        "PermanentRedirect",
        "QuotaExceeded",
        "RequestTimeTooSkewed",
    }
)
REFUSED_CALLER: Final = frozenset({401, 403})

# Of the certificate, or of the file with those that are trusted.
MISTRUST: Final = (
    "CERTIFICATE_VERIFY_FAILED",
    "NO_CERTIFICATE_OR_CRL_FOUND",
    "No such file",
    "Is a directory",
    "Permission denied",
)

TRANSPORT_FAILURES: Final = (
    botocore.ConnectionError,
    botocore.HTTPClientError,
    botocore.IncompleteReadError,
    botocore.FlexibleChecksumError,
    ResponseParserError,
)


def missing_object(key: ObjectKey) -> Meanings:
    return dict.fromkeys(MISSING_CODES, ObjectMissing(key))


def missing_multipart(multipart: Multipart) -> Meanings:
    return dict.fromkeys(MISSING_CODES, MultipartGone(multipart.key))


def existing_object(key: ObjectKey) -> Meanings:
    return dict.fromkeys(("PreconditionFailed", "412"), ObjectExists(key))


def replaced_part(multipart: Multipart) -> Meanings:
    return {"InvalidPart": PartReplaced(multipart.key)}


def of_a_copy(multipart: Multipart, *, source: ObjectRange) -> Meanings:
    return {
        "NoSuchUpload": MultipartGone(multipart.key),
        "NoSuchKey": ObjectMissing(source.key),
        # AWS copies no range of an object of at most 5 MiB, some stores no range at all.
        "InvalidRequest": CopyUnsupported(),
        **dict.fromkeys(UNKNOWN_CALL_CODES, CopyUnsupported()),
    }


def is_unknown_call(error: botocore.ClientError) -> bool:
    """Whether the store says that it does not know this kind of request, or a header of it."""
    return code_of(error) in UNKNOWN_CALL_CODES or _status_of(error) in {405, 501}


def code_of(error: botocore.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


@contextmanager
def translated(call: str, *, meanings: Meanings = NOTHING_SPECIAL) -> Iterator[None]:
    """Raise our errors where the client library raises its own."""
    try:
        yield
    except botocore.ClientError as error:
        raise refusal(call, error, meanings=meanings) from error
    except botocore.SSLError as error:
        raise _untrusted(call, error) from error
    except TRANSPORT_FAILURES as error:
        raise StoreUnavailable(call, reason=type(error).__name__) from error
    except botocore.BotoCoreError as error:
        raise StoreRejected(call, reason=type(error).__name__) from error


def refusal(call: str, error: botocore.ClientError, *, meanings: Meanings) -> DomainError:
    code = code_of(error)
    known = meanings.get(code)
    return known if known is not None else refusal_of(call, code=code, status=_status_of(error))


def refusal_of(call: str, *, code: str, status: int) -> DomainError:
    """Return what a code means that says nothing special of its call.

    The status is 0 where one request has many answers.
    """
    reason = f"{code} (status {status})" if status else code
    if code in ALTERED_BODY_CODES:
        return BodyAltered(call, reason=reason)
    if code in RETRYABLE_CODES or status in RETRYABLE_STATUSES:
        return StoreUnavailable(call, reason=reason)
    if code in MISCONFIGURATION_CODES or status in REFUSED_CALLER:
        return StoreMisconfigured(call, reason=reason)
    return StoreRejected(call, reason=reason)


def _untrusted(call: str, error: botocore.SSLError) -> StoreFailed:
    if any(reason in str(error) for reason in MISTRUST):
        return StoreMisconfigured(call, reason="its certificate cannot be verified here")
    return StoreUnavailable(call, reason=type(error).__name__)


def _status_of(error: botocore.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
