"""The storage contract, held by every real object store."""

from typing import TYPE_CHECKING

import pytest

from dev.stack.infrastructure import Store
from pipeline.storage.s3 import ChecksumMode, S3Storage
from schemas.runtime.s3 import client
from schemas.settings import ObjectStoreSettings
from tests.contract.test_storage_port import StorageContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="module")
def clients() -> "Iterator[dict[Store, S3Client]]":
    """One client for each store: making a client takes longer than most tests."""
    clients: dict[Store, S3Client] = {}
    yield clients
    for each in clients.values():
        each.close()


class TestS3Storage(StorageContract):
    @pytest.fixture
    def storage(
        self, store: Store, store_settings: ObjectStoreSettings, clients: "dict[Store, S3Client]"
    ) -> S3Storage:
        if store not in clients:
            clients[store] = client(store_settings)
        return S3Storage(
            clients[store],
            bucket=store_settings.s3_bucket,
            # A refused body stays refused, and the waits would only take time.
            attempts=1,
            checksum_mode=ChecksumMode.AUTO,
            page_size=2,
        )
