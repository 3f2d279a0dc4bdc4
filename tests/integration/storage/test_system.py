"""An upload through the whole system, with every store and both staging backends."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dev.client import Client
from dev.stack.infrastructure import Store
from dev.stack.object_store import ObjectStore, settings_in
from dev.stack.stack import Stack
from pipeline.storage.s3 import S3Storage
from schemas.lifecycle import StagingKind
from schemas.object_keys import ObjectKey
from schemas.settings import MIB
from tests.e2e.gateways import Gateways
from tests.eventually import eventually
from tests.stack import fresh_name

# With chunks of 8 MiB and parts of 5 MiB, some parts lie in two chunks.
SIZE = 30 * MIB + 12_345


@pytest.fixture(scope="module", params=list(Store), ids=str)
def store(request: pytest.FixtureRequest) -> Store:
    """Each object store in turn, with one system for its tests."""
    store: Store = request.param
    return store


@pytest.fixture(scope="module")
def system(infrastructure: Stack, migrated_template: str, store: Store) -> Iterator[Stack]:
    """Relay and transfer worker with this store; the worker reads from both staging backends."""
    reached = infrastructure.start_store(store) | {"S3_BUCKET": fresh_name()}
    ObjectStore.from_settings(reached).create_bucket(reached["S3_BUCKET"])
    settings = reached | {"S3_PART_SIZE": "5MiB"}
    with infrastructure.scoped("store", settings=settings, template=migrated_template) as own:
        own.api_key = own.create_api_key(tenant="stores")
        own.start_services("relay", "transfer")
        yield own


@pytest.fixture
def storage(system: Stack) -> Iterator[S3Storage]:
    storage = S3Storage.connect(settings_in(system.environment))
    yield storage
    storage.close()


def keys_in(storage: S3Storage) -> set[ObjectKey]:
    return {listed.key for listed in storage.objects_under("")}


def uploaded(file: Path, *, system: Stack, staging: StagingKind, logs: Path) -> dict[str, Any]:
    """Upload a file through a gateway with this staging; return its settled job."""

    def send(url: str) -> dict[str, Any]:
        with Client(url, api_key=str(system.api_key)) as client:
            accepted = client.upload(file)
            return client.wait_until_settled(accepted["job_id"], timeout=timedelta(minutes=1))

    async def start_and_send() -> dict[str, Any]:
        environment = system.environment | {"STAGING": staging}
        async with Gateways.started(1, environment=environment, directory=logs) as gateways:
            return await asyncio.to_thread(send, gateways.urls[0])

    return asyncio.run(start_and_send())


@pytest.mark.parametrize("staging", [StagingKind.DIRECTORY, StagingKind.OBJECTS], ids=str)
def test_an_upload_reaches_every_store_and_leaves_nothing_else(
    system: Stack, storage: S3Storage, staging: StagingKind, tmp_path: Path
) -> None:
    file, copy = tmp_path / "file", tmp_path / "copy"
    file.write_bytes(os.urandom(SIZE))
    before = keys_in(storage)

    job = uploaded(file, system=system, staging=staging, logs=tmp_path)

    assert job["status"] == "completed"
    # A job settles before its staged bytes are deleted.
    (key,) = eventually(
        lambda: keys_in(storage) - before,
        until=lambda keys: len(keys) == 1,
    )
    storage.download(key, to=copy)
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()
    assert list(storage.multiparts_under("")) == []
