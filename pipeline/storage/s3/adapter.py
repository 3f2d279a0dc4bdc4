"""One bucket of a store that speaks S3."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final, Self, TypedDict, TypeVar, cast

import structlog
from botocore import exceptions as botocore

from pipeline.storage.errors import (
    CopyUnsupported,
    MultipartGone,
    ObjectMissing,
    ObjectReplaced,
    RangeEndsEarly,
)
from pipeline.storage.port import (
    Body,
    ListedMultipart,
    ListedObject,
    Multipart,
    ObjectHead,
    ObjectRange,
    StoredPart,
)
from pipeline.storage.s3 import bodies, refusals
from pipeline.storage.s3.checksums import ChecksumMode, Checksums, Probe
from pipeline.storage.s3.copying import Copying
from pipeline.storage.s3.precondition import Condition, Precondition
from pipeline.storage.s3.retries import FIRST_WAIT, store_retry
from schemas.errors import StoreRejected, StoreUnavailable
from schemas.object_keys import ObjectKey
from schemas.runtime import s3
from schemas.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        ListMultipartUploadsOutputTypeDef,
        ListObjectsV2OutputTypeDef,
        PaginatorConfigTypeDef,
    )

log = structlog.stdlib.get_logger(__name__)

LARGEST_PAGE: Final = 1_000
MOST_DELETED_AT_ONCE: Final = 1_000

Answer = TypeVar("Answer")
Page = TypeVar("Page", bound="ListObjectsV2OutputTypeDef | ListMultipartUploadsOutputTypeDef")


class _AfterObject(TypedDict, total=False):
    ContinuationToken: str


class _AfterMultipart(TypedDict, total=False):
    KeyMarker: str
    UploadIdMarker: str


class S3Storage:
    """One bucket, through one client: make one per process, after any fork."""

    def __init__(
        self,
        client: "S3Client",
        *,
        bucket: str,
        attempts: int,
        checksum_mode: ChecksumMode = ChecksumMode.WHEN_REQUIRED,
        first_wait: timedelta = FIRST_WAIT,
        page_size: int = LARGEST_PAGE,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._attempts = attempts
        self._checksums = Checksums(checksum_mode, find_out=Probe(client, bucket=bucket).find_out)
        self._copying = Copying(client, bucket=bucket)
        self._precondition = Precondition()
        self._deletes_many = True
        self._first_wait = first_wait
        self._page_size = page_size
        self._paging: PaginatorConfigTypeDef = {"PageSize": page_size}

    @classmethod
    def connect(cls, settings: ObjectStoreSettings, *, page_size: int = LARGEST_PAGE) -> Self:
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
        def send() -> StoredPart:
            integrity = self._checksums.of_a_body()
            with bodies.opened(body, abandoned=abandoned) as content:
                answer = self._client.upload_part(
                    Bucket=self._bucket,
                    Key=multipart.key,
                    UploadId=multipart.id,
                    PartNumber=number,
                    Body=content,
                    ContentLength=body.size_bytes,
                    ContentMD5=bodies.content_md5(body),
                    **integrity,
                )
            # Swift leaves it out where a newer write of the same name is under way.
            if "ETag" not in answer:
                raise StoreUnavailable("upload_part", reason="an answer without an ETag")
            return StoredPart(
                number=number,
                size_bytes=body.size_bytes,
                etag=_unquoted(answer["ETag"]),
                etag_is_digest=_is_digest(answer.get("ServerSideEncryption")),
            )

        return self._ask(
            "upload_part",
            send,
            meanings=refusals.missing_multipart(multipart),
            abandoned=abandoned,
        )

    def copy_part(self, multipart: Multipart, *, number: int, source: ObjectRange) -> StoredPart:
        def copy() -> str:
            if not self._copying.is_offered(source):
                raise CopyUnsupported
            answer = self._client.upload_part_copy(
                Bucket=self._bucket,
                Key=multipart.key,
                UploadId=multipart.id,
                PartNumber=number,
                CopySource={"Bucket": self._bucket, "Key": source.key},
                CopySourceRange=_range(source),
            )
            return answer["CopyPartResult"]["ETag"]

        etag = self._ask("copy_part", copy, meanings=refusals.of_a_copy(multipart, source=source))
        return StoredPart(number=number, size_bytes=source.size_bytes, etag=_unquoted(etag))

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

        return self._ask("list_parts", every_page, meanings=refusals.missing_multipart(multipart))

    def complete(self, multipart: Multipart, *, parts: Sequence[StoredPart]) -> None:
        def finish(condition: Condition) -> None:
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=multipart.key,
                UploadId=multipart.id,
                MultipartUpload={
                    "Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
                },
                **condition,
            )

        self._ask(
            "complete",
            lambda: self._precondition.on(finish),
            meanings={
                **refusals.missing_multipart(multipart),
                **refusals.existing_object(multipart.key),
                **refusals.replaced_part(multipart),
            },
        )

    def abort(self, multipart: Multipart) -> None:
        with suppress(MultipartGone):
            self._ask(
                "abort",
                lambda: self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=multipart.key, UploadId=multipart.id
                ),
                meanings=refusals.missing_multipart(multipart),
            )

    def open_multiparts(self, key: ObjectKey) -> list[Multipart]:
        return [
            listed.multipart for listed in self.multiparts_under(key) if listed.multipart.key == key
        ]

    def put(self, key: ObjectKey, *, body: Body, content_type: str, abandoned: Event) -> None:
        def send(condition: Condition) -> None:
            integrity = self._checksums.of_a_body()
            with bodies.opened(body, abandoned=abandoned) as content:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=content,
                    ContentLength=body.size_bytes,
                    ContentMD5=bodies.content_md5(body),
                    ContentType=content_type,
                    **integrity,
                    **condition,
                )

        self._ask(
            "put",
            lambda: self._precondition.on(send),
            meanings=refusals.existing_object(key),
            abandoned=abandoned,
        )

    def head(self, key: ObjectKey) -> ObjectHead:
        answer = self._ask(
            "head",
            lambda: self._client.head_object(Bucket=self._bucket, Key=key),
            meanings=refusals.missing_object(key),
        )
        return ObjectHead(
            size_bytes=answer["ContentLength"],
            etag=_unquoted(answer["ETag"]),
            content_type=answer.get("ContentType", ""),
            etag_is_digest=_is_digest(answer.get("ServerSideEncryption")),
        )

    @contextmanager
    def read(self, source: ObjectRange, *, abandoned: Event) -> Iterator[Iterator[bytes]]:
        if not source.size_bytes:
            self.head(source.key)  # no range is empty in HTTP
            yield iter(())
            return
        answer = self._ask(
            "read",
            lambda: self._client.get_object(
                Bucket=self._bucket, Key=source.key, Range=_range(source)
            ),
            meanings={
                **refusals.missing_object(source.key),
                "InvalidRange": RangeEndsEarly(source.size_bytes, missing_bytes=source.size_bytes),
            },
            abandoned=abandoned,
        )
        # Leaving early closes the connection: what is still on its way is not read.
        with closing(answer["Body"]) as body:
            if source.etag is not None and _unquoted(answer.get("ETag", "")) != source.etag:
                raise ObjectReplaced
            missing_bytes = source.size_bytes - answer["ContentLength"]
            if missing_bytes > 0:
                raise RangeEndsEarly(source.size_bytes, missing_bytes=missing_bytes)
            if missing_bytes < 0:
                raise StoreRejected("read", reason="it answers more than the range")
            yield bodies.blocks(body, size_bytes=source.size_bytes, abandoned=abandoned)

    def download(self, key: ObjectKey, *, to: Path) -> None:
        def receive() -> None:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            with closing(answer["Body"]) as body, to.open("wb") as file:
                for block in body.iter_chunks(bodies.BLOCK):
                    file.write(block)

        self._ask("download", receive, meanings=refusals.missing_object(key))

    def delete(self, key: ObjectKey, *, abandoned: Event | None = None) -> None:
        with suppress(ObjectMissing):
            self._ask(
                "delete",
                lambda: self._client.delete_object(Bucket=self._bucket, Key=key),
                meanings=refusals.missing_object(key),
                abandoned=abandoned,
            )

    def delete_all(self, keys: Sequence[ObjectKey]) -> None:
        for start in range(0, len(keys), MOST_DELETED_AT_ONCE):
            some = keys[start : start + MOST_DELETED_AT_ONCE]
            if not self._ask("delete_all", partial(self._delete_at_once, some)):
                for key in some:
                    self.delete(key)

    def objects_under(self, prefix: str) -> Iterator[ListedObject]:
        for page in self._pages("objects_under", partial(self._page_of_objects, prefix)):
            for found in page.get("Contents", []):
                yield ListedObject(
                    ObjectKey(found["Key"]),
                    size_bytes=found["Size"],
                    modified_at=found["LastModified"],
                )

    def multiparts_under(self, prefix: str) -> Iterator[ListedMultipart]:
        for page in self._pages("multiparts_under", partial(self._page_of_multiparts, prefix)):
            for found in page.get("Uploads", []):
                multipart = Multipart(ObjectKey(found["Key"]), id=found["UploadId"])
                yield ListedMultipart(multipart, begun_at=found["Initiated"])

    def _pages(self, call: str, page_after: Callable[[Page | None], Page]) -> Iterator[Page]:
        """Yield page after page, each asked for again by itself while the store is unavailable."""
        page: Page | None = None
        while page is None or page.get("IsTruncated"):
            page = self._ask(call, partial(page_after, page))
            yield page

    def _page_of_objects(
        self, prefix: str, last: "ListObjectsV2OutputTypeDef | None"
    ) -> "ListObjectsV2OutputTypeDef":
        after: _AfterObject = {"ContinuationToken": last["NextContinuationToken"]} if last else {}
        return self._client.list_objects_v2(
            Bucket=self._bucket, Prefix=prefix, MaxKeys=self._page_size, **after
        )

    def _page_of_multiparts(
        self, prefix: str, last: "ListMultipartUploadsOutputTypeDef | None"
    ) -> "ListMultipartUploadsOutputTypeDef":
        after: _AfterMultipart = (
            {"KeyMarker": last["NextKeyMarker"], "UploadIdMarker": last["NextUploadIdMarker"]}
            if last
            else {}
        )
        try:
            return self._client.list_multipart_uploads(
                Bucket=self._bucket, Prefix=prefix, MaxUploads=self._page_size, **after
            )
        except botocore.ClientError as error:
            # What some stores answer for a bucket that never had any.
            if s3.code_of(error) != "NoSuchUpload":
                raise
            return cast("ListMultipartUploadsOutputTypeDef", {"IsTruncated": False})

    def _delete_at_once(self, keys: Sequence[ObjectKey]) -> bool:
        """Delete up to a thousand objects; False where the store only deletes one by one."""
        if not self._deletes_many:
            return False
        try:
            answer = self._client.delete_objects(
                Bucket=self._bucket,
                Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
            )
        except botocore.ClientError as error:
            if not refusals.is_unknown_call(error):
                raise
            self._deletes_many = False
            return False
        for failure in answer.get("Errors", []):
            code = failure.get("Code", "")
            if code not in refusals.MISSING_CODES:
                raise s3.refusal("delete_all", code=code, status=0)
        return True

    def _ask(
        self,
        call: str,
        request: Callable[[], Answer],
        *,
        meanings: s3.Meanings = s3.NO_MEANINGS,
        abandoned: Event | None = None,
    ) -> Answer:
        """Make a request, again while the store is unavailable, and speak of errors our way."""

        def attempt() -> Answer:
            with s3.translated(call, meanings=meanings):
                return request()

        policy = store_retry(
            attempts=self._attempts,
            first_wait=self._first_wait,
            abandoned=abandoned or Event(),
        )
        return policy(attempt)


def _range(source: ObjectRange) -> str:
    return f"bytes={source.offset}-{source.offset + source.size_bytes - 1}"


def _unquoted(etag: str) -> str:
    return etag.strip('"')


def _is_digest(encryption: str | None) -> bool:
    """Whether an ETag is one where the store names this encryption, or none."""
    return encryption in {None, "AES256"}
