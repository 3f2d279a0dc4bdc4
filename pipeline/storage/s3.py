"""Object storage on S3 and on the stores that speak its protocol.

What differs between stores is kept out of the way: no checksum header they may
not know (`s3_checksum_mode`), but Content-MD5 on every body, which all of them
check.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, BinaryIO, Final, Self, TypeVar, cast

import structlog
from boto3.session import Session
from botocore import exceptions as botocore
from botocore.config import Config
from botocore.parsers import ResponseParserError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_random_exponential,
)

from pipeline.storage.errors import (
    BodyAltered,
    MultipartGone,
    ObjectMissing,
    StoreMisconfigured,
    StoreRejected,
    StoreUnavailable,
)
from pipeline.storage.port import Body, Multipart, ObjectHead, StoredPart
from schemas.errors import DomainError
from schemas.object_keys import ObjectKey
from schemas.settings import MIB, ObjectStoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import PaginatorConfigTypeDef

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

DOWNLOAD_BLOCK: Final = MIB
LARGEST_PAGE: Final = 1_000

FIRST_WAIT: Final = timedelta(milliseconds=500)
LONGEST_WAIT: Final = timedelta(seconds=15)

# Some stores name the key where the upload is gone; HEAD has no body to name anything in.
MISSING_CODES: Final = frozenset({"NoSuchUpload", "NoSuchKey", "404"})
ALTERED_BODY_CODES: Final = frozenset({"BadDigest", "IncompleteBody"})
RETRYABLE_CODES: Final = frozenset(
    {
        "OperationAborted",  # status 409: another request on the same key is under way
        "RequestTimeout",  # status 400
        "SlowDown",
        "Throttling",
        "TooManyRequests",
    }
)
RETRYABLE_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
# Said of us, not of the request. Swift also calls a bucket missing while it cannot look it up.
MISCONFIGURATION_CODES: Final = frozenset(
    {"NoSuchBucket", "PermanentRedirect", "QuotaExceeded", "RequestTimeTooSkewed", "ExpiredToken"}
)
REFUSED_CALLER: Final = frozenset({401, 403})

TRANSPORT_FAILURES: Final = (
    botocore.ConnectionError,
    botocore.HTTPClientError,
    botocore.IncompleteReadError,
    botocore.FlexibleChecksumError,
    ResponseParserError,
)


class S3Storage:
    """One bucket, through one client: make one per process, after any fork."""

    def __init__(
        self,
        client: "S3Client",
        *,
        bucket: str,
        attempts: int,
        first_wait: timedelta = FIRST_WAIT,
        page_size: int = LARGEST_PAGE,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._attempts = attempts
        self._first_wait = first_wait
        self._paging: PaginatorConfigTypeDef = {"PageSize": page_size}

    @classmethod
    def connect(cls, settings: ObjectStoreSettings, *, page_size: int = LARGEST_PAGE) -> Self:
        """Return storage on the bucket of `settings`; nothing is sent yet."""
        return cls(
            client(settings),
            bucket=settings.s3_bucket,
            attempts=settings.s3_attempts,
            page_size=page_size,
        )

    def close(self) -> None:
        self._client.close()

    def create_multipart(self, key: ObjectKey, *, content_type: str) -> Multipart:
        answer = self._ask(
            "create_multipart",
            lambda: self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=content_type
            ),
        )
        return Multipart(key=key, id=answer["UploadId"])

    def upload_part(
        self, multipart: Multipart, *, number: int, body: Body, abandoned: Event
    ) -> StoredPart:
        def send() -> str:
            with _opened(body, abandoned=abandoned) as content:
                return self._client.upload_part(
                    Bucket=self._bucket,
                    Key=multipart.key,
                    UploadId=multipart.id,
                    PartNumber=number,
                    Body=content,
                    ContentLength=body.size_bytes,
                    ContentMD5=_base64(body.md5),
                )["ETag"]

        etag = self._ask(
            "upload_part", send, missing=MultipartGone(multipart.key), abandoned=abandoned
        )
        return StoredPart(number=number, size_bytes=body.size_bytes, etag=_unquoted(etag))

    def list_parts(self, multipart: Multipart) -> list[StoredPart]:
        def every_page() -> list[StoredPart]:
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self._bucket,
                Key=multipart.key,
                UploadId=multipart.id,
                PaginationConfig=self._paging,
            )
            return [
                StoredPart(
                    number=part["PartNumber"],
                    size_bytes=part["Size"],
                    etag=_unquoted(part["ETag"]),
                )
                for page in pages
                for part in page.get("Parts", [])
            ]

        return self._ask("list_parts", every_page, missing=MultipartGone(multipart.key))

    def complete(self, multipart: Multipart, *, parts: Sequence[StoredPart]) -> None:
        self._ask(
            "complete",
            lambda: self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=multipart.key,
                UploadId=multipart.id,
                MultipartUpload={
                    "Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
                },
            ),
            missing=MultipartGone(multipart.key),
        )

    def abort(self, multipart: Multipart) -> None:
        with suppress(MultipartGone):
            self._ask(
                "abort",
                lambda: self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=multipart.key, UploadId=multipart.id
                ),
                missing=MultipartGone(multipart.key),
            )

    def open_multiparts(self, key: ObjectKey) -> list[Multipart]:
        def every_page() -> list[Multipart]:
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=key, PaginationConfig=self._paging
            )
            return [
                Multipart(key=key, id=upload["UploadId"])
                for page in pages
                for upload in page.get("Uploads", [])
                if upload["Key"] == key
            ]

        return self._ask("open_multiparts", every_page)

    def put(self, key: ObjectKey, *, body: Body, content_type: str, abandoned: Event) -> None:
        def send() -> None:
            with _opened(body, abandoned=abandoned) as content:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=content,
                    ContentLength=body.size_bytes,
                    ContentMD5=_base64(body.md5),
                    ContentType=content_type,
                )

        self._ask("put", send, abandoned=abandoned)

    def head(self, key: ObjectKey) -> ObjectHead:
        answer = self._ask(
            "head",
            lambda: self._client.head_object(Bucket=self._bucket, Key=key),
            missing=ObjectMissing(key),
        )
        return ObjectHead(
            size_bytes=answer["ContentLength"],
            etag=_unquoted(answer["ETag"]),
            content_type=answer.get("ContentType", ""),
            etag_is_digest=answer.get("ServerSideEncryption", "AES256") == "AES256",
        )

    def download(self, key: ObjectKey, *, to: Path) -> None:
        def receive() -> None:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            with closing(answer["Body"]) as body, to.open("wb") as file:
                for block in body.iter_chunks(DOWNLOAD_BLOCK):
                    file.write(block)

        self._ask("download", receive, missing=ObjectMissing(key))

    def delete(self, key: ObjectKey) -> None:
        with suppress(ObjectMissing):
            self._ask(
                "delete",
                lambda: self._client.delete_object(Bucket=self._bucket, Key=key),
                missing=ObjectMissing(key),
            )

    def _ask(
        self,
        call: str,
        request: Callable[[], Answer],
        *,
        missing: DomainError | None = None,
        abandoned: Event | None = None,
    ) -> Answer:
        """Make a request, again while the store is unavailable, and speak of errors our way."""

        def attempt() -> Answer:
            with _translated(call, missing=missing):
                return request()

        policy = store_retry(
            attempts=self._attempts,
            first_wait=self._first_wait,
            abandoned=abandoned or Event(),
        )
        return policy(attempt)


def store_retry(*, attempts: int, first_wait: timedelta, abandoned: Event) -> Retrying:
    """Return the one retry policy of the store: on `StoreUnavailable` only, until `abandoned`."""
    return Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_attempt(attempts) | stop_when_event_set(abandoned),
        # Full jitter: workers that met the same outage must not come back together.
        wait=wait_random_exponential(
            multiplier=first_wait.total_seconds(), max=LONGEST_WAIT.total_seconds()
        ),
        sleep=sleep_using_event(abandoned),
        before_sleep=_log_retry,
        reraise=True,
    )


def _log_retry(state: RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome else None
    log.warning("store.retrying", attempt=state.attempt_number, reason=str(failure))


def client(settings: ObjectStoreSettings) -> "S3Client":
    """Return a client as the settings want it; only the adapter speaks through it."""
    return Session().client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        config=Config(
            signature_version="s3v4",
            s3={
                "addressing_style": "path",
                # Content-MD5 is among the signed headers, so the body is bound to the
                # signature already; signing it too would cost one more SHA-256 per byte.
                "payload_signing_enabled": False,
            },
            connect_timeout=settings.s3_connect_timeout.total_seconds(),
            read_timeout=settings.s3_read_timeout.total_seconds(),
            # Two retry loops, one inside the other, would multiply their tries.
            retries={"mode": "standard", "total_max_attempts": 1},
            # A caller whose parts are all under way still asks for other things.
            max_pool_connections=settings.s3_parallel_parts + 2,
            request_checksum_calculation=settings.s3_checksum_mode,
            response_checksum_validation=settings.s3_checksum_mode,
            tcp_keepalive=True,
        ),
    )


@contextmanager
def _opened(body: Body, *, abandoned: Event) -> Iterator[BinaryIO | bytes]:
    """Give each try of a request a reader of its own, at the start of the bytes."""
    if isinstance(body.content, bytes):
        yield body.content
        return
    with body.content.open(abandoned=abandoned) as reader:
        # The client library is typed for BinaryIO; it uses read, seek and tell.
        yield cast("BinaryIO", reader)


@contextmanager
def _translated(call: str, *, missing: DomainError | None) -> Iterator[None]:
    try:
        yield
    except botocore.ClientError as error:
        raise _refusal(call, error, missing=missing) from error
    except TRANSPORT_FAILURES as error:
        raise StoreUnavailable(call, reason=type(error).__name__) from error
    except botocore.BotoCoreError as error:
        raise StoreRejected(call, reason=type(error).__name__) from error


def _refusal(call: str, error: botocore.ClientError, *, missing: DomainError | None) -> DomainError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    reason = f"{code} (status {status})"
    if missing is not None and code in MISSING_CODES:
        return missing
    if code in ALTERED_BODY_CODES:
        return BodyAltered(call, reason=reason)
    if code in RETRYABLE_CODES or status in RETRYABLE_STATUSES:
        return StoreUnavailable(call, reason=reason)
    if code in MISCONFIGURATION_CODES or status in REFUSED_CALLER:
        return StoreMisconfigured(call, reason=reason)
    return StoreRejected(call, reason=reason)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def _unquoted(etag: str) -> str:
    return etag.strip('"')
