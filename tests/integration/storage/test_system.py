"""An upload through the whole system, with every store and both staging backends."""

import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from dev.client import Client
from dev.stack.infrastructure import Store
from dev.stack.stack import Stack
from pipeline.storage.s3 import S3Storage
from schemas.object_keys import ObjectKey
from schemas.settings import MIB, ObjectStoreSettings

# With chunks of 8 MiB and parts of 5 MiB, some parts lie in two chunks.
SIZE = 30 * MIB + 12_345


@pytest.fixture
def reached(
    infrastructure: Stack, store: Store, object_store_settings: ObjectStoreSettings
) -> dict[str, str]:
    """Settings of the store and of the test's bucket."""
    return infrastructure.start_store(store) | {"S3_BUCKET": object_store_settings.s3_bucket}


@pytest.fixture(params=["directory", "s3"])
def system(
    request: pytest.FixtureRequest,
    infrastructure: Stack,
    migrated_template: str,
    reached: dict[str, str],
) -> Iterator[Stack]:
    """Gateway, relay and transfer worker with this store."""
    settings = reached | {"S3_PART_SIZE": "5MiB", "STAGING": request.param}
    with infrastructure.scoped("store", settings=settings, template=migrated_template) as own:
        own.api_key = own.create_api_key(tenant="stores")
        own.start_services("gateway", "relay", "transfer")
        yield own


@retry(
    retry=retry_if_exception_type(AssertionError),
    stop=stop_after_delay(10),
    wait=wait_fixed(0.2),
    reraise=True,
)
def only_object(storage: S3Storage) -> ObjectKey:
    """Return the only key in the bucket, once the staged bytes are deleted."""
    keys = [listed.key for listed in storage.objects_under("")]
    assert len(keys) == 1, keys
    return keys[0]


def test_an_upload_reaches_every_store_and_leaves_nothing_else(
    system: Stack, object_store_settings: ObjectStoreSettings, tmp_path: Path
) -> None:
    file, copy = tmp_path / "file", tmp_path / "copy"
    file.write_bytes(os.urandom(SIZE))
    storage = S3Storage.connect(object_store_settings)
    assert system.api_key is not None

    with Client(system.url, api_key=system.api_key) as client:
        accepted = client.upload(file)
        job = client.wait_until_settled(accepted["job_id"], timeout=timedelta(minutes=1))

    assert job["status"] == "completed"
    storage.download(only_object(storage), to=copy)
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()
    assert list(storage.multiparts_under("")) == []
    storage.close()
