"""Requests on one bucket: the client, the retries and the translation of errors."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Final, Self, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_random_exponential,
)

from pipeline.storage.errors import RangeEndsEarly
from pipeline.storage.port import ObjectRange
from pipeline.storage.s3.checksums import ChecksumMode, Checksums, Probe
from pipeline.storage.s3.copying import Copying
from pipeline.storage.s3.precondition import Precondition
from schemas.errors import StoreUnavailable
from schemas.runtime import s3
from schemas.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        ListMultipartUploadsOutputTypeDef,
        ListObjectsV2OutputTypeDef,
        PaginatorConfigTypeDef,
    )

PAGE_SIZE_MAX: Final = 1_000

FIRST_WAIT: Final = timedelta(milliseconds=500)
WAIT_MAX: Final = timedelta(seconds=15)

Answer = TypeVar("Answer")
Page = TypeVar("Page", bound="ListObjectsV2OutputTypeDef | ListMultipartUploadsOutputTypeDef")


class S3Requests:
    """Makes the requests on one bucket."""

    def __init__(
        self,
        client: "S3Client",
        *,
        bucket: str,
        attempts: int,
        checksum_mode: ChecksumMode = ChecksumMode.WHEN_REQUIRED,
        first_wait: timedelta = FIRST_WAIT,
        page_size: int = PAGE_SIZE_MAX,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._attempts = attempts
        self._checksums = Checksums(checksum_mode, probe=Probe(client, bucket=bucket).run)
        self._copying = Copying(client, bucket=bucket)
        self._precondition = Precondition()
        self._deletes_many = True
        self._first_wait = first_wait
        self._page_size = page_size
        self._paging: PaginatorConfigTypeDef = {"PageSize": page_size}

    @classmethod
    def connect(cls, settings: ObjectStoreSettings, *, page_size: int = PAGE_SIZE_MAX) -> Self:
        """Return storage on the bucket of `settings`; nothing is sent yet."""
        return cls(
            s3.client(settings),
            bucket=settings.s3_bucket,
            attempts=settings.s3_attempts,
            checksum_mode=ChecksumMode(settings.s3_checksum_mode),
            page_size=page_size,
        )

    def close(self) -> None:
        self._client.close()

    def _ask(
        self,
        call: str,
        request: Callable[[], Answer],
        *,
        meanings: s3.Meanings = s3.NO_MEANINGS,
        abandoned: Event | None = None,
    ) -> Answer:
        """Make a request, retry while the store is unavailable, and translate errors."""

        def attempt() -> Answer:
            with s3.translated(call, meanings=meanings):
                return request()

        abandoned = abandoned or Event()
        retrying = Retrying(
            # An object that is too short stays too short.
            retry=retry_if_exception_type(StoreUnavailable)
            & retry_if_not_exception_type(RangeEndsEarly),
            stop=stop_after_attempt(self._attempts) | stop_when_event_set(abandoned),
            # Full jitter: workers that saw the same outage must not return at the same moment.
            wait=wait_random_exponential(
                multiplier=self._first_wait.total_seconds(), max=WAIT_MAX.total_seconds()
            ),
            sleep=sleep_using_event(abandoned),
            before_sleep=s3.log_retry,
            reraise=True,
        )
        return retrying(attempt)

    def _pages(self, call: str, page_after: Callable[[Page | None], Page]) -> Iterator[Page]:
        """Yield page after page; each page is retried separately."""
        page: Page | None = None
        while page is None or page.get("IsTruncated"):
            page = self._ask(call, partial(page_after, page))
            yield page


def range_header(source: ObjectRange) -> str:
    return f"bytes={source.offset}-{source.offset + source.size_bytes - 1}"


def unquoted(etag: str) -> str:
    return etag.strip('"')


def is_digest(encryption: str | None) -> bool:
    """Return whether the ETag is an MD5, given the encryption that the store names."""
    return encryption in {None, "AES256"}
