"""The bucket, as far as staging needs it: put an object, delete one, see whether it is there."""

import base64
import re
from collections.abc import Callable
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Final, Self, TypeVar

import structlog
from boto3.session import Session
from botocore import exceptions as botocore
from botocore.config import Config
from botocore.parsers import ResponseParserError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from gateway.staging.errors import StoreRejected, StoreUnavailable
from gateway.staging.serial_executor import THREADS, Threads
from schemas.object_keys import ObjectKey
from schemas.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef, PutObjectOutputTypeDef

log = structlog.stdlib.get_logger(__name__)

Answer = TypeVar("Answer")

FIRST_WAIT: Final = timedelta(milliseconds=200)
LONGEST_WAIT: Final = timedelta(seconds=2)
LONGEST_RETRYING: Final = timedelta(seconds=30)
"""The client waits meanwhile, and can try again itself."""

PROBE_TIMEOUT: Final = timedelta(seconds=1)

RETRYABLE_CODES: Final = frozenset(
    {
        "BadDigest",  # damaged on its way to the store
        "IncompleteBody",
        "OperationAborted",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
    }
)
RETRYABLE_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
TRANSPORT_FAILURES: Final = (
    botocore.ConnectionError,
    botocore.HTTPClientError,
    botocore.IncompleteReadError,
    ResponseParserError,
)
_MD5: Final = re.compile(r"[0-9a-f]{32}")


class Store:
    """One bucket, through one client.

    Requests have threads of their own, and so has the probe: a slow store must
    keep neither bodies from being spooled nor the probe from its answer.
    """

    def __init__(
        self, client: "S3Client", probe: "S3Client", *, bucket: str, attempts: int
    ) -> None:
        self._client = client
        self._probe = probe
        self._bucket = bucket
        self._attempts = attempts
        self._senders = Threads("sending")
        self._probing = Threads("probing", count=1)

    @classmethod
    def connect(cls, settings: ObjectStoreSettings) -> Self:
        """Return the bucket of `settings`; nothing is sent yet."""
        return cls(
            client(
                settings,
                connect_timeout=settings.s3_connect_timeout,
                read_timeout=settings.s3_read_timeout,
            ),
            client(settings, connect_timeout=PROBE_TIMEOUT, read_timeout=PROBE_TIMEOUT),
            bucket=settings.s3_bucket,
            attempts=settings.s3_attempts,
        )

    async def put(self, key: ObjectKey, *, content: IO[bytes], size_bytes: int, md5: bytes) -> None:
        """Write an object; returns when the store has confirmed it has exactly these bytes.

        Raises:
            StoreUnavailable, StoreRejected: it has not.
        """

        def send() -> None:
            content.seek(0)
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=content,
                ContentLength=size_bytes,
                ContentMD5=base64.b64encode(md5).decode("ascii"),
            )
            if not _is_of(answer, md5=md5) and not self._has(key, size_bytes=size_bytes, md5=md5):
                raise StoreUnavailable("put_object", reason="the store has another content")

        await self._ask("put_object", send)

    async def delete(self, key: ObjectKey) -> None:
        """Delete an object; that there is none is what was wanted.

        Raises:
            StoreUnavailable, StoreRejected: the store has not confirmed it.
        """
        await self._ask(
            "delete_object", lambda: self._client.delete_object(Bucket=self._bucket, Key=key)
        )

    async def is_there(self) -> bool:
        """Whether the bucket is there and lets us in; answers within moments."""
        try:
            await self._probing.run(lambda: self._probe.head_bucket(Bucket=self._bucket))
        except (botocore.ClientError, botocore.BotoCoreError) as error:
            log.warning("staging.bucket_unreachable", error=type(error).__name__)
            return False
        return True

    def close(self) -> None:
        self._senders.close()
        self._probing.close()
        self._client.close()
        self._probe.close()

    def _has(self, key: ObjectKey, *, size_bytes: int, md5: bytes) -> bool:
        """Look for an object, where the answer to its PUT did not tell.

        Swift answers without an ETag when the same key was put a moment later
        by somebody else; ours is then the older one, and not kept.
        """
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=key)
        except botocore.ClientError as error:
            reason = f"status {error.response.get('ResponseMetadata', {}).get('HTTPStatusCode')}"
            raise StoreUnavailable("head_object", reason=reason) from error
        return found["ContentLength"] == size_bytes and _is_of(found, md5=md5)

    async def _ask(self, call: str, request: Callable[[], Answer]) -> Answer:
        """Make a request in a thread, again while the store is unavailable.

        The pauses are spent outside the threads: requests to a store that is
        down must not keep others from theirs.
        """

        def attempt() -> Answer:
            try:
                return request()
            except botocore.ClientError as error:
                raise _refusal(call, error) from error
            except TRANSPORT_FAILURES as error:
                raise StoreUnavailable(call, reason=type(error).__name__) from error
            except botocore.BotoCoreError as error:
                raise StoreRejected(call, reason=type(error).__name__) from error

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_attempt(self._attempts) | stop_after_delay(LONGEST_RETRYING),
            wait=wait_random_exponential(
                multiplier=FIRST_WAIT.total_seconds(), max=LONGEST_WAIT.total_seconds()
            ),
            before_sleep=_log_retry,
            reraise=True,
        )

        async def attempt_in_thread() -> Answer:
            return await self._senders.run(attempt)

        return await retrying(attempt_in_thread)


def client(
    settings: ObjectStoreSettings, *, connect_timeout: timedelta, read_timeout: timedelta
) -> "S3Client":
    return Session().client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        verify=str(settings.s3_ca_bundle) if settings.s3_ca_bundle else None,
        config=Config(
            signature_version="s3v4",
            # Content-MD5 is signed, and binds the body to the signature already.
            s3={"addressing_style": "path", "payload_signing_enabled": False},
            connect_timeout=connect_timeout.total_seconds(),
            read_timeout=read_timeout.total_seconds(),
            # Two retry loops, one inside the other, would multiply their tries.
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=THREADS,
            # Trailers with checksums, which older stores refuse or store as data, add
            # nothing to a body whose Content-MD5 the store checks.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            tcp_keepalive=True,
        ),
    )


def _is_of(answer: "PutObjectOutputTypeDef | HeadObjectOutputTypeDef", *, md5: bytes) -> bool:
    """Whether the ETag of an answer is there and does not speak of another content."""
    etag = answer.get("ETag", "").strip('"').lower()
    # Encrypted with a key of the store's own, the ETag is no digest of the content.
    is_digest = answer.get("ServerSideEncryption", "AES256") == "AES256"
    if is_digest and _MD5.fullmatch(etag):
        return etag == md5.hex()
    return etag != ""


def _refusal(call: str, error: botocore.ClientError) -> StoreUnavailable | StoreRejected:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    reason = f"{code} (status {status})"
    if code in RETRYABLE_CODES or status in RETRYABLE_STATUSES:
        return StoreUnavailable(call, reason=reason)
    return StoreRejected(call, reason=reason)


def _log_retry(state: RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome else None
    log.warning("store.retrying", attempt=state.attempt_number, reason=str(failure))
