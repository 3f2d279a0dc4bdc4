"""Whole objects: put, read, listed and deleted."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final, TypedDict

from botocore import exceptions as botocore

from pipeline.storage.errors import ObjectMissing, ObjectReplaced, RangeEndsEarly
from pipeline.storage.port import Body, ListedObject, ObjectHead, ObjectRange
from pipeline.storage.s3 import bodies, refusals
from pipeline.storage.s3.precondition import Condition
from pipeline.storage.s3.requests import S3Requests, is_digest, range_header, unquoted
from schemas.errors import StoreRejected
from schemas.object_keys import ObjectKey
from schemas.runtime import s3

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

DELETE_BATCH_MAX: Final = 1_000


class _AfterObject(TypedDict, total=False):
    ContinuationToken: str


class S3Objects(S3Requests):
    """The requests on whole objects."""

    def put(self, key: ObjectKey, *, body: Body, content_type: str, abandoned: Event) -> None:
        def send(condition: Condition) -> None:
            integrity = self._checksums.body_arguments()
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
            etag=unquoted(answer["ETag"]),
            content_type=answer.get("ContentType", ""),
            etag_is_digest=is_digest(answer.get("ServerSideEncryption")),
        )

    @contextmanager
    def read(self, source: ObjectRange, *, abandoned: Event) -> Iterator[Iterator[bytes]]:
        if not source.size_bytes:
            self.head(source.key)  # HTTP has no empty range
            yield iter(())
            return
        answer = self._ask(
            "read",
            lambda: self._client.get_object(
                Bucket=self._bucket, Key=source.key, Range=range_header(source)
            ),
            meanings={
                **refusals.missing_object(source.key),
                "InvalidRange": RangeEndsEarly(source.size_bytes, missing_bytes=source.size_bytes),
            },
            abandoned=abandoned,
        )
        # Leaving early closes the connection instead of reading the rest.
        with closing(answer["Body"]) as body:
            if source.etag is not None and unquoted(answer.get("ETag", "")) != source.etag:
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
        for start in range(0, len(keys), DELETE_BATCH_MAX):
            some = keys[start : start + DELETE_BATCH_MAX]
            if not self._ask("delete_all", partial(self._delete_at_once, some)):
                for key in some:
                    self.delete(key)

    def objects_under(self, prefix: str) -> Iterator[ListedObject]:
        for page in self._pages("objects_under", partial(self._page_of_objects, prefix)):
            for found in page.get("Contents", []):
                yield ListedObject(ObjectKey(found["Key"]), modified_at=found["LastModified"])

    def _page_of_objects(
        self, prefix: str, last: "ListObjectsV2OutputTypeDef | None"
    ) -> "ListObjectsV2OutputTypeDef":
        after: _AfterObject = {"ContinuationToken": last["NextContinuationToken"]} if last else {}
        return self._client.list_objects_v2(
            Bucket=self._bucket, Prefix=prefix, MaxKeys=self._page_size, **after
        )

    def _delete_at_once(self, keys: Sequence[ObjectKey]) -> bool:
        """Delete up to 1000 objects in one request; False if the store cannot."""
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
