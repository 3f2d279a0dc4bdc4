"""Decides whether bodies have a CRC32 in addition to their MD5.

Every body has a Content-MD5. Where the store checks it, a CRC32 adds nothing, and older
stores refuse its trailer or store the trailer as data. So a CRC32 is tried only on a store
that accepts bytes with a wrong MD5.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from threading import Event, Lock
from typing import TYPE_CHECKING, Final, Literal, TypedDict
from uuid import uuid4

import structlog

from pipeline.storage.port import Body
from pipeline.storage.s3 import bodies
from schemas import staging_layout
from schemas.errors import BodyAltered, StoreFailed, StoreUnavailable
from schemas.runtime.s3 import translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = structlog.stdlib.get_logger(__name__)

PROBE_SIZE: Final = 1024


class ChecksumMode(StrEnum):
    AUTO = "auto"
    WHEN_SUPPORTED = "when_supported"
    WHEN_REQUIRED = "when_required"


class Integrity(TypedDict, total=False):
    """Arguments of a request with a body, in addition to its Content-MD5."""

    ChecksumAlgorithm: Literal["CRC32"]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    mode: Literal[ChecksumMode.WHEN_SUPPORTED, ChecksumMode.WHEN_REQUIRED]
    reason: str


class Checksums:
    """The checksum mode, decided once per process, before the first body."""

    def __init__(self, mode: ChecksumMode, *, probe: Callable[[], ProbeResult]) -> None:
        self._mode = mode
        self._probe = probe
        self._deciding = Lock()

    def body_arguments(self) -> Integrity:
        """Return the arguments for a request with a body.

        Raises:
            StoreUnavailable: the store does not answer the probe; the mode stays undecided.
        """
        if self._mode is ChecksumMode.AUTO:
            with self._deciding:
                if self._mode is ChecksumMode.AUTO:
                    self._decide()
        return {"ChecksumAlgorithm": "CRC32"} if self._mode is ChecksumMode.WHEN_SUPPORTED else {}

    def _decide(self) -> None:
        result = self._probe()
        log.info("store.checksum_mode", mode=result.mode, reason=result.reason)
        self._mode = result.mode


class Probe:
    """Tests with a small object how the store handles checksums, and deletes the object."""

    def __init__(
        self,
        client: "S3Client",
        *,
        bucket: str,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._random_bytes = random_bytes

    def run(self) -> ProbeResult:
        """Probe the store; one request suffices if the store checks MD5.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        key = f"{staging_layout.PROBES}{uuid4()}"
        content = self._random_bytes(PROBE_SIZE)
        try:
            if self._refuses_altered_bytes(key, content):
                return ProbeResult(ChecksumMode.WHEN_REQUIRED, "the store checks Content-MD5")
            if self._keeps_object_with_crc32(key, content) and self._takes_part_with_crc32(key):
                return ProbeResult(ChecksumMode.WHEN_SUPPORTED, "the store checks no Content-MD5")
        except BodyAltered as refused:
            return ProbeResult(ChecksumMode.WHEN_REQUIRED, str(refused))
        except StoreUnavailable:
            raise
        except StoreFailed as refused:
            # The store refuses the checksum or the probe. A body without CRC32 is always accepted.
            return ProbeResult(ChecksumMode.WHEN_REQUIRED, str(refused))
        return ProbeResult(ChecksumMode.WHEN_REQUIRED, "the store altered a body with a CRC32")

    def _refuses_altered_bytes(self, key: str, content: bytes) -> bool:
        announced = Body(content, md5=hashlib.md5(b"", usedforsecurity=False).digest())
        try:
            with translated("probe"):
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=content,
                    ContentMD5=bodies.content_md5(announced),
                )
        except BodyAltered:
            return True
        self._remove(key)
        return False

    def _keeps_object_with_crc32(self, key: str, content: bytes) -> bool:
        with translated("probe"):
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=content, ChecksumAlgorithm="CRC32"
            )
        try:
            with translated("probe"):
                answer = self._client.get_object(Bucket=self._bucket, Key=key)
                size_bytes = answer["ContentLength"]
                with closing(answer["Body"]) as body:
                    kept = b"".join(bodies.blocks(body, size_bytes=size_bytes, abandoned=Event()))
        finally:
            self._remove(key)
        return kept == content

    def _takes_part_with_crc32(self, key: str) -> bool:
        """Return whether parts may have a trailer; some stores accept it only on objects."""
        content = self._random_bytes(PROBE_SIZE)
        with translated("probe"):
            id_ = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        try:
            with translated("probe"):
                part = self._client.upload_part(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=id_,
                    PartNumber=1,
                    Body=content,
                    ChecksumAlgorithm="CRC32",
                )
        finally:
            with translated("probe"):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=id_)
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return part["ETag"].strip('"') == digest

    def _remove(self, key: str) -> None:
        with translated("probe"):
            self._client.delete_object(Bucket=self._bucket, Key=key)
