"""Multipart uploads: created, sent or copied part by part, completed, listed and aborted."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, TypedDict, cast

from botocore import exceptions as botocore

from pipeline.storage.errors import CopyUnsupported, MultipartGone
from pipeline.storage.port import Body, ListedMultipart, Multipart, ObjectRange, StoredPart
from pipeline.storage.s3 import bodies, refusals
from pipeline.storage.s3.precondition import Condition
from pipeline.storage.s3.requests import S3Requests, is_digest, range_header, unquoted
from schemas.errors import StoreUnavailable
from schemas.object_keys import ObjectKey
from schemas.runtime import s3

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ListMultipartUploadsOutputTypeDef


class _AfterMultipart(TypedDict, total=False):
    KeyMarker: str
    UploadIdMarker: str


class S3Multiparts(S3Requests):
    """The requests on multipart uploads."""

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
            integrity = self._checksums.body_arguments()
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
            # Swift omits the ETag while a newer write of the same part is in progress.
            if "ETag" not in answer:
                raise StoreUnavailable("upload_part", reason="an answer without an ETag")
            return StoredPart(
                number=number,
                size_bytes=body.size_bytes,
                etag=unquoted(answer["ETag"]),
                etag_is_digest=is_digest(answer.get("ServerSideEncryption")),
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
                CopySourceRange=range_header(source),
            )
            return answer["CopyPartResult"]["ETag"]

        etag = self._ask("copy_part", copy, meanings=refusals.of_a_copy(multipart, source=source))
        return StoredPart(number=number, size_bytes=source.size_bytes, etag=unquoted(etag))

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
                    etag=unquoted(part["ETag"]),
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

    def multiparts_under(self, prefix: str) -> Iterator[ListedMultipart]:
        for page in self._pages("multiparts_under", partial(self._page_of_multiparts, prefix)):
            for found in page.get("Uploads", []):
                multipart = Multipart(ObjectKey(found["Key"]), id=found["UploadId"])
                yield ListedMultipart(multipart, begun_at=found["Initiated"])

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
            # Some stores answer with this error for a bucket that never had a multipart upload.
            if s3.code_of(error) != "NoSuchUpload":
                raise
            return cast("ListMultipartUploadsOutputTypeDef", {"IsTruncated": False})
