"""Client of the object store, and the meaning of the store's refusals."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import boto3
import structlog
from botocore import exceptions as botocore
from botocore.config import Config
from botocore.parsers import ResponseParserError
from tenacity import RetryCallState

from schemas.errors import (
    BodyAltered,
    DomainError,
    StoreFailed,
    StoreMisconfigured,
    StoreRejected,
    StoreUnavailable,
)
from schemas.runtime import store_time
from schemas.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = structlog.stdlib.get_logger(__name__)

Meanings: TypeAlias = Mapping[str, DomainError]
"""Error codes whose meaning depends on the call."""

NO_MEANINGS: Final[Meanings] = {}

RETRYABLE_CODES: Final = frozenset(
    {
        "ConditionalRequestConflict",  # status 409: another write of the same key is in progress
        "InternalError",
        "OperationAborted",  # status 409: another request for the same key is in progress
        "RequestTimeTooSkewed",  # the next request is signed with the store's time
        "RequestTimeout",  # status 400
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
    }
)
RETRYABLE_STATUSES: Final = frozenset({429, 500, 502, 503, 504})

ALTERED_BODY_CODES: Final = frozenset({"BadDigest", "IncompleteBody"})

# Swift also answers NoSuchBucket while it cannot look the bucket up.
MISCONFIGURATION_CODES: Final = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "NoSuchBucket",
        "PermanentRedirect",
        "QuotaExceeded",
    }
)
MISCONFIGURATION_STATUSES: Final = frozenset({401, 403})

# In an SSLError about the store's certificate, or about the file of trusted certificates.
UNTRUSTED_CERTIFICATE: Final = (
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


def client(
    settings: ObjectStoreSettings,
    *,
    max_connections: int | None = None,
    connect_timeout: timedelta | None = None,
    read_timeout: timedelta | None = None,
) -> "S3Client":
    """Return a client that adds no checksum and retries nothing by itself.

    Args:
        settings: the store.
        max_connections: by default enough for the parts sent at the same time and other requests.
        connect_timeout: replaces the timeout of the settings.
        read_timeout: replaces the timeout of the settings.
    """
    store_time.install()
    made = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        verify=None if settings.s3_ca_bundle is None else str(settings.s3_ca_bundle),
        config=Config(
            signature_version="s3v4",
            s3={
                "addressing_style": "path",
                # Content-MD5 is a signed header and binds the body to the signature.
                # Signing the body too would cost a SHA-256 of every byte.
                "payload_signing_enabled": False,
            },
            connect_timeout=(connect_timeout or settings.s3_connect_timeout).total_seconds(),
            read_timeout=(read_timeout or settings.s3_read_timeout).total_seconds(),
            # Two nested retry loops would multiply their attempts.
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=max_connections or settings.s3_parallel_parts + 2,
            # Older stores refuse checksum trailers or store them as data.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            tcp_keepalive=True,
        ),
    )
    made.meta.events.register("before-call.s3.DeleteObjects", _add_content_md5)
    made.meta.events.register("after-call.s3", store_time.learn)
    return made


def _add_content_md5(params: dict[str, Any], **_: object) -> None:
    # The library sends only a CRC32, which older stores do not accept for this call.
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode("ascii")


@contextmanager
def translated(call: str, *, meanings: Meanings = NO_MEANINGS) -> Iterator[None]:
    """Raise this project's errors in place of the client library's."""
    try:
        yield
    except botocore.ClientError as error:
        code = code_of(error)
        raise meanings.get(code) or refusal(call, code=code, status=status_of(error)) from error
    except botocore.SSLError as error:
        raise _ssl_failure(call, error) from error
    except TRANSPORT_FAILURES as error:
        raise StoreUnavailable(call, reason=type(error).__name__) from error
    except botocore.BotoCoreError as error:
        raise StoreRejected(call, reason=type(error).__name__) from error


def refusal(call: str, *, code: str, status: int) -> StoreFailed:
    """Return the error for a code that means the same for every call.

    Args:
        call: the call.
        code: the store's error code.
        status: of HTTP; 0 if the answer to one request holds several codes.
    """
    reason = f"{code} (status {status})" if status else code
    if code in ALTERED_BODY_CODES:
        return BodyAltered(call, reason=reason)
    if code in RETRYABLE_CODES or status in RETRYABLE_STATUSES:
        return StoreUnavailable(call, reason=reason)
    if code in MISCONFIGURATION_CODES or status in MISCONFIGURATION_STATUSES:
        return StoreMisconfigured(call, reason=reason)
    return StoreRejected(call, reason=reason)


def code_of(error: botocore.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def status_of(error: botocore.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def log_retry(state: RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome else None
    log.warning("store.retrying", attempt=state.attempt_number, reason=str(failure))


def _ssl_failure(call: str, error: botocore.SSLError) -> StoreFailed:
    if any(reason in str(error) for reason in UNTRUSTED_CERTIFICATE):
        return StoreMisconfigured(call, reason="its certificate cannot be verified")
    return StoreUnavailable(call, reason=type(error).__name__)
