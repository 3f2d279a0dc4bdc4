import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.staging import (
    BodyHasher,
    ChunkWriter,
    StagedUpload,
    Staging,
    StagingElsewhere,
)
from gateway.staging.backends import UploadCache
from gateway.staging.directory import DirectoryBackend
from schemas.errors import StagingMissing
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from tests.factories.buffers import buffers_of

pytestmark = pytest.mark.anyio

TENANT_ID = TenantId(uuid4())
UPLOAD_ID = UploadId(uuid4())


class OtherBackend(DirectoryBackend):
    """A second kind of staging for `Staging`."""

    kind = StagingKind.OBJECTS


def is_directory(path: Path) -> bool:
    return path.is_dir()


def upload_in(kind: StagingKind) -> StagedUpload:
    return StagedUpload(id=UPLOAD_ID, tenant_id=TENANT_ID, size=4, chunk_size=4, kind=kind)


async def open_chunk_in(staging: Staging, kind: StagingKind) -> ChunkWriter:
    upload = upload_in(kind)
    backend = await staging.backend_of(upload)
    return backend.open_chunk(upload, index=0, offset=0, size_bytes=4, hasher=BodyHasher())


@pytest.fixture
def primary(tmp_path: Path) -> DirectoryBackend:
    return DirectoryBackend(tmp_path / "primary", reserve_bytes=0)


@pytest.fixture
def other(tmp_path: Path) -> OtherBackend:
    return OtherBackend(tmp_path / "other", reserve_bytes=0)


@pytest.fixture
def staging(primary: DirectoryBackend, other: OtherBackend) -> Iterator[Staging]:
    staging = Staging(primary, buffers=buffers_of(4), make_other=lambda: other)
    yield staging
    staging.close()


async def test_chunks_go_to_the_backend_of_their_upload(
    staging: Staging, other: OtherBackend, tmp_path: Path
) -> None:
    await staging.primary.prepare()
    await other.prepare()
    await other.create(UPLOAD_ID, tenant_id=TENANT_ID, size_bytes=4)

    async with await open_chunk_in(staging, StagingKind.OBJECTS) as writer:
        await writer.complete(memoryview(b"abcd"), processed=lambda: None)

    assert (tmp_path / "other" / str(UPLOAD_ID)).read_bytes() == b"abcd"


async def test_an_upload_is_removed_from_every_backend(
    primary: DirectoryBackend, other: OtherBackend, tmp_path: Path
) -> None:
    staging = Staging(primary, buffers=buffers_of(4), other=other)
    for backend in (primary, other):
        await backend.prepare()
        await backend.create(UPLOAD_ID, tenant_id=TENANT_ID, size_bytes=4)

    await staging.remove(UPLOAD_ID, tenant_id=TENANT_ID)

    assert not (tmp_path / "primary" / str(UPLOAD_ID)).exists()
    assert not (tmp_path / "other" / str(UPLOAD_ID)).exists()
    staging.close()


async def test_the_other_backend_is_built_once_when_an_upload_is_in_it(
    primary: DirectoryBackend, other: OtherBackend
) -> None:
    made = 0

    def make() -> OtherBackend:
        nonlocal made
        made += 1
        return other

    staging = Staging(primary, buffers=buffers_of(4), make_other=make)
    await staging.primary.prepare()
    await staging.remove(UploadId(uuid4()), tenant_id=TENANT_ID)
    assert made == 0

    await asyncio.gather(*(open_chunk_in(staging, StagingKind.OBJECTS) for _ in range(2)))
    assert made == 1
    staging.close()


async def test_the_other_backend_is_prepared_before_its_first_use(
    staging: Staging, tmp_path: Path
) -> None:
    with pytest.raises(StagingMissing):
        async with await open_chunk_in(staging, StagingKind.OBJECTS):
            pass

    assert is_directory(tmp_path / "other")


async def test_an_upload_in_an_unreachable_backend_raises_staging_elsewhere(
    primary: DirectoryBackend,
) -> None:
    staging = Staging(primary, buffers=buffers_of(4))

    with pytest.raises(StagingElsewhere):
        await open_chunk_in(staging, StagingKind.OBJECTS)
    staging.close()


async def test_a_digest_only_sink_returns_the_digest(staging: Staging) -> None:
    sink = staging.digest_only(BodyHasher())

    await sink.append(memoryview(b"ab"))

    assert (
        await sink.complete(memoryview(b"c"), processed=lambda: None)
        == hashlib.sha256(b"abc").digest()
    )


def cached_upload() -> StagedUpload:
    return StagedUpload(
        id=UploadId(uuid4()),
        tenant_id=TenantId(uuid4()),
        size=1,
        chunk_size=1,
        kind=StagingKind.DIRECTORY,
    )


def test_the_cache_finds_an_upload_only_for_its_tenant() -> None:
    cache, upload = UploadCache(), cached_upload()
    cache.add(upload)

    assert cache.find(upload.id, tenant_id=upload.tenant_id) == upload
    assert cache.find(upload.id, tenant_id=TenantId(uuid4())) is None
    assert cache.find(UploadId(uuid4()), tenant_id=upload.tenant_id) is None


def test_the_cache_drops_the_least_recently_used_upload() -> None:
    cache = UploadCache(size_max=2)
    first, second, third = uploads = [cached_upload() for _ in range(3)]
    cache.add(first)
    cache.add(second)
    cache.find(first.id, tenant_id=first.tenant_id)
    cache.add(third)

    found = [cache.find(one.id, tenant_id=one.tenant_id) for one in uploads]
    assert found == [first, None, third]
