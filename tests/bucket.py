"""A view of the bucket through plain boto3, independent of the product."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Bucket:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._name = environment["S3_BUCKET"]
        self._client: S3Client = boto3.client(
            "s3",
            endpoint_url=environment["S3_ENDPOINT_URL"],
            aws_access_key_id=environment["S3_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["S3_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
            verify=environment.get("S3_CA_BUNDLE"),
            config=Config(s3={"addressing_style": "path"}),
        )

    def keys(self) -> set[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name)
        return {found["Key"] for page in pages for found in page.get("Contents", [])}

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._name, Key=key, Body=content)

    def content(self, key: str) -> bytes:
        return self._client.get_object(Bucket=self._name, Key=key)["Body"].read()

    def start_multipart(self, key: str, first_part: bytes) -> tuple[str, str]:
        """Store the first part of a multipart upload; return the upload's id and the part's ETag."""
        upload_id = self._client.create_multipart_upload(Bucket=self._name, Key=key)["UploadId"]
        part = self._client.upload_part(
            Bucket=self._name, Key=key, UploadId=upload_id, PartNumber=1, Body=first_part
        )
        return upload_id, part["ETag"].strip('"')

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._name, Key=key)

    def key_of(self, upload_id: str) -> str:
        """Return the only key that belongs to an upload."""
        (key,) = (key for key in self.keys() if key.endswith(upload_id))
        return key

    def sha256(self, key: str) -> str:
        digest = hashlib.sha256()
        body = self._client.get_object(Bucket=self._name, Key=key)["Body"]
        for block in body.iter_chunks(1024 * 1024):
            digest.update(block)
        return digest.hexdigest()

    def open_multiparts(self) -> list[str]:
        answer = self._client.list_multipart_uploads(Bucket=self._name)
        return [found["Key"] for found in answer.get("Uploads", [])]
