"""The bucket's operations that staging uses: put an object, delete it, test the access."""

import base64
import re
from collections.abc import Callable
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Final, Self, TypeVar

import structlog
from botocore import exceptions as botocore
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from gateway.staging.serial_executor import THREADS, Threads
from schemas.errors import StoreUnavailable
from schemas.object_keys import ObjectKey
from schemas.runtime import s3
from schemas.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        HeadObjectOutputTypeDef,
        ObjectIdentifierTypeDef,
        PutObjectOutputTypeDef,
    )

log = structlog.stdlib.get_logger(__name__)

Answer = TypeVar("Answer")

FIRST_WAIT: Final = timedelta(milliseconds=200)
WAIT_MAX: Final = timedelta(seconds=2)
RETRYING_MAX: Final = timedelta(seconds=30)
"""Few, because the client waits meanwhile and can retry the chunk itself."""

PROBE_TIMEOUT: Final = timedelta(seconds=1)

_MD5: Final = re.compile(r"[0-9a-f]{32}")


class Store:
    """The operations on one bucket.

    Requests and the probe have threads of their own: a slow store must delay neither the
    spooling of bodies nor the answer of the probe.
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
            s3.client(settings, max_connections=THREADS),
            s3.client(
                settings,
                max_connections=1,
                connect_timeout=PROBE_TIMEOUT,
                read_timeout=PROBE_TIMEOUT,
            ),
            bucket=settings.s3_bucket,
            attempts=settings.s3_attempts,
        )

    async def put(self, key: ObjectKey, *, content: IO[bytes], size_bytes: int, md5: bytes) -> None:
        """Write an object; returns once the store has confirmed exactly these bytes.

        Raises:
            StoreFailed: the store did not confirm them.
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
            if not _matches(answer, md5=md5) and not self._has(key, size_bytes=size_bytes, md5=md5):
                raise StoreUnavailable("put_object", reason="the store has another content")

        await self._ask("put_object", send)

    async def delete(self, key: ObjectKey) -> None:
        """Delete an object; a missing object counts as deleted.

        Raises:
            StoreFailed: the store did not confirm it.
        """
        await self._ask(
            "delete_object", lambda: self._client.delete_object(Bucket=self._bucket, Key=key)
        )

    async def delete_under(self, prefix: str) -> None:
        """Delete the objects under a prefix; one request in a thousand objects, each tried once.

        Raises:
            StoreFailed: the store did not confirm a deletion; some objects are left.
        """

        def delete_page() -> bool:
            listed = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix)
            keys: list[ObjectIdentifierTypeDef] = [
                {"Key": found["Key"]} for found in listed.get("Contents", [])
            ]
            if keys:
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}
                )
                for failure in answer.get("Errors", []):
                    raise s3.refusal("delete_objects", code=failure.get("Code", ""), status=0)
            return listed.get("IsTruncated", False)

        while await self._ask("delete_objects", delete_page, attempts=1):
            log.debug("staging.page_deleted", prefix=prefix)

    async def problem(self) -> str | None:
        """Return why the bucket cannot be accessed, within about a second; None if it can."""
        try:
            await self._probing.run(lambda: self._probe.head_bucket(Bucket=self._bucket))
        except botocore.ClientError as error:
            return f"refused: the store answers {s3.status_of(error)} for S3_BUCKET"
        except botocore.BotoCoreError as error:
            return f"unreachable: the store at S3_ENDPOINT_URL fails ({type(error).__name__})"
        return None

    def close(self) -> None:
        self._senders.close()
        self._probing.close()
        self._client.close()
        self._probe.close()

    def _has(self, key: ObjectKey, *, size_bytes: int, md5: bytes) -> bool:
        """Check the stored object, if the answer to its PUT has no ETag.

        Swift leaves the ETag out if another request put the same key a moment later: then the
        object of this request is the older object, and is not kept.
        """
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=key)
        except botocore.ClientError as error:
            # A missing object counts as retryable, because the next attempt puts the object again.
            raise StoreUnavailable("head_object", reason=f"status {s3.status_of(error)}") from error
        return found["ContentLength"] == size_bytes and _matches(found, md5=md5)

    async def _ask(
        self, call: str, request: Callable[[], Answer], *, attempts: int | None = None
    ) -> Answer:
        """Make a request in a thread; repeat it while the store is unavailable.

        No thread waits between the attempts: requests to a store that is down must not occupy the
        threads that other requests need.
        """

        def attempt() -> Answer:
            with s3.translated(call):
                try:
                    return request()
                except botocore.SSLError as error:
                    # An untrusted certificate is also answered with 503: clients can continue once
                    # a proxy's certificate is replaced, without a change of the settings.
                    raise StoreUnavailable(call, reason=type(error).__name__) from error

        async def attempt_in_thread() -> Answer:
            return await self._senders.run(attempt)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_attempt(attempts or self._attempts) | stop_after_delay(RETRYING_MAX),
            wait=wait_random_exponential(
                multiplier=FIRST_WAIT.total_seconds(), max=WAIT_MAX.total_seconds()
            ),
            before_sleep=s3.log_retry,
            reraise=True,
        )
        return await retrying(attempt_in_thread)


def _matches(answer: "PutObjectOutputTypeDef | HeadObjectOutputTypeDef", *, md5: bytes) -> bool:
    """Return False if an answer has no ETag, or an ETag that contradicts the content."""
    etag = answer.get("ETag", "").strip('"').lower()
    # If the store encrypts with a key of its own, the ETag is not a digest of the content.
    is_digest = answer.get("ServerSideEncryption", "AES256") == "AES256"
    if is_digest and _MD5.fullmatch(etag):
        return etag == md5.hex()
    return etag != ""
