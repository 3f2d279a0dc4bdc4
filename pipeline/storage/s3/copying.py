"""Whether the store makes parts out of objects."""

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
    """Finds out once per process, with an upload of its own.

    A store that overlooks where a part is to be copied from takes the request
    for an empty part, and some do not let that part be replaced afterwards: the
    first copy of a real upload would spoil it.
    """

    def __init__(self, client: "S3Client", *, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._is_offered: bool | None = None
        self._asking = Lock()

    def is_offered(self, source: ObjectRange) -> bool:
        """Return whether it is, as the first byte of `source` shows.

        Raises:
            botocore.ClientError: from the trial; nothing was found out.
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
            # Left open it would be an orphan like any other.
            with suppress(botocore.ClientError):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=id_)
        return bool(answer.get("CopyPartResult", {}).get("ETag"))
