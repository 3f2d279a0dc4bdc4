"""Direct views of the staged bytes, for both kinds of staging."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import boto3
import pytest
from botocore.config import Config

from schemas import staging_layout
from schemas.lifecycle import StagingKind
from schemas.settings import ObjectStoreSettings
from tests.integration.gateway.api import Api

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


over_both_stagings = pytest.mark.parametrize(
    "staging_kind", [StagingKind.DIRECTORY, StagingKind.OBJECTS], indirect=True
)
"""Run every test of a module once per kind of staging."""


class Staged(Protocol):
    """The staging of a gateway, read directly."""

    files_at_creation: int
    """Number of files or objects of a new upload."""
    """Whether the gateway itself deletes the staged bytes of a cancelled upload."""

    @property
    def settings(self) -> dict[str, str]:
        """Environment of a gateway with this staging."""

    @property
    def store(self) -> ObjectStoreSettings | None:
        """The store that an application in this process needs, if any."""

    async def chunks(self, api: Api, upload_id: str) -> dict[int, bytes]:
        """Return the bytes of every chunk that is on record."""

    def fingerprint(self, upload_id: str) -> object:
        """Return a value that changes with every write."""

    def count(self, upload_id: str) -> int:
        """Return the number of objects or files of an upload."""

    def scratch(self) -> list[str]:
        """Return the names of temporary files."""

    def size_limit_for(self, chunk_size: int) -> int:
        """Return the file size limit at which the second chunk fails halfway."""


class InDirectory:
    store = None
    files_at_creation = 1

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def settings(self) -> dict[str, str]:
        return {"STAGING_DIR": str(self.directory)}

    async def chunks(self, api: Api, upload_id: str) -> dict[int, bytes]:
        manifest = (await api.get(f"/uploads/{upload_id}")).json()
        content = (self.directory / upload_id).read_bytes()
        assert len(content) == manifest["size"]
        size = manifest["chunk_size"]
        return {
            chunk["index"]: content[chunk["index"] * size :][: chunk["size"]]
            for chunk in manifest["chunks"]
        }

    def fingerprint(self, upload_id: str) -> object:
        return (self.directory / upload_id).stat().st_mtime_ns

    def count(self, upload_id: str) -> int:
        return len([name for name in self.files() if name == upload_id])

    def scratch(self) -> list[str]:
        return []

    def size_limit_for(self, chunk_size: int) -> int:
        return chunk_size

    def files(self) -> dict[str, int]:
        return {
            path.name: path.stat().st_size
            for path in self.directory.iterdir()
            if path.name != staging_layout.MARKER
        }


class InBucket:
    files_at_creation = 0

    def __init__(self, store: ObjectStoreSettings, *, work_dir: Path) -> None:
        self.store = store
        self.work_dir = work_dir
        self.client: S3Client = boto3.client(
            "s3",
            endpoint_url=store.s3_endpoint_url,
            aws_access_key_id=store.s3_access_key_id.get_secret_value(),
            aws_secret_access_key=store.s3_secret_access_key.get_secret_value(),
            region_name=store.s3_region,
            config=Config(s3={"addressing_style": "path"}),
        )

    @property
    def settings(self) -> dict[str, str]:
        return {
            "STAGING": StagingKind.OBJECTS,
            "WORK_DIR": str(self.work_dir),
            "S3_ENDPOINT_URL": self.store.s3_endpoint_url or "",
            "S3_REGION": self.store.s3_region,
            "S3_BUCKET": self.store.s3_bucket,
            "S3_ACCESS_KEY_ID": self.store.s3_access_key_id.get_secret_value(),
            "S3_SECRET_ACCESS_KEY": self.store.s3_secret_access_key.get_secret_value(),
        }

    async def chunks(self, api: Api, upload_id: str) -> dict[int, bytes]:
        manifest = (await api.get(f"/uploads/{upload_id}")).json()
        keys = {key.rpartition("/")[2]: key for key in self.keys(upload_id)}
        return {
            chunk["index"]: self.client.get_object(
                Bucket=self.store.s3_bucket,
                Key=keys[f"{chunk['index']:08d}-{chunk['sha256']}"],
            )["Body"].read()
            for chunk in manifest["chunks"]
        }

    def fingerprint(self, upload_id: str) -> object:
        return [(one["Key"], one["ETag"], one["LastModified"]) for one in self._objects(upload_id)]

    def count(self, upload_id: str) -> int:
        return len(self.keys(upload_id))

    def scratch(self) -> list[str]:
        return [path.name for path in self.work_dir.iterdir()]

    def size_limit_for(self, chunk_size: int) -> int:
        return chunk_size // 2

    def keys(self, upload_id: str) -> list[str]:
        return [one["Key"] for one in self._objects(upload_id)]

    def _objects(self, upload_id: str) -> list[Mapping[str, Any]]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.store.s3_bucket, Prefix="staging/"
        )
        found = [one for page in pages for one in page.get("Contents", [])]
        return [dict(one) for one in found if f"/{upload_id}/" in one["Key"]]
