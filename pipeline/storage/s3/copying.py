"""Finds out whether the store copies objects to parts."""

from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from botocore import exceptions as botocore

from pipeline.storage.port import ObjectRange
from pipeline.storage.s3 import refusals
from schemas import staging_layout

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = structlog.stdlib.get_logger(__name__)


class Copying:
    """Probes the store once per process, with a multipart upload of its own.

    A store that ignores the copy source stores an empty part, and some stores do not let
    that part be replaced: without a probe, the first copy would spoil a real upload.
    """

    def __init__(self, client: "S3Client", *, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._is_offered: bool | None = None
        self._asking = Lock()

    def is_offered(self, source: ObjectRange) -> bool:
        """Return whether the store copies parts; the probe copies the first byte of `source`.

        Raises:
            botocore.ClientError: the probe failed; the result stays unknown.
        """
        with self._asking:
            if self._is_offered is None:
                self._is_offered = self._copies_a_byte(source)
                log.info("store.copies_parts", offered=self._is_offered)
        return self._is_offered

    def _copies_a_byte(self, source: ObjectRange) -> bool:
        key = f"{staging_layout.PROBES}{uuid4()}"
        id_ = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        try:
            answer = self._client.upload_part_copy(
                Bucket=self._bucket,
                Key=key,
                UploadId=id_,
                PartNumber=1,
                CopySource={"Bucket": self._bucket, "Key": source.key},
                CopySourceRange=f"bytes={source.offset}-{source.offset}",
            )
        except botocore.ClientError as error:
            if refusals.is_unknown_call(error):
                return False
            raise
        finally:
            # The sweep of orphans aborts it otherwise.
            with suppress(botocore.ClientError):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=id_)
        return bool(answer.get("CopyPartResult", {}).get("ETag"))
