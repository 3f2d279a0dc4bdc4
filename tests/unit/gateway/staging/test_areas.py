import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.staging import StagedUpload, Staging, StagingElsewhere, StagingMissing
from gateway.staging.directory import DirectoryArea
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind

pytestmark = pytest.mark.anyio

TENANT_ID = TenantId(uuid4())
UPLOAD_ID = UploadId(uuid4())


class Sha256:
    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, block: memoryview) -> None:
        self._digest.update(block)

    def verify(self) -> bytes:
        return self._digest.digest()


class Elsewhere(DirectoryArea):
    """A second kind of staging, as far as `Staging` can tell."""

    kind = StagingKind.OBJECTS


def is_there(directory: Path) -> bool:
    return directory.is_dir()


def staged_in(kind: StagingKind) -> StagedUpload:
    return StagedUpload(id=UPLOAD_ID, tenant_id=TENANT_ID, size=4, chunk_size=4, kind=kind)


@pytest.fixture
def here(tmp_path: Path) -> DirectoryArea:
    return DirectoryArea(tmp_path / "here", reserve_bytes=0)


@pytest.fixture
def there(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path / "there", reserve_bytes=0)


@pytest.fixture
def staging(here: DirectoryArea, there: Elsewhere) -> Iterator[Staging]:
    staging = Staging(here, make_other=lambda: there)
    yield staging
    staging.close()


async def test_chunks_go_where_their_upload_was_begun(
    staging: Staging, there: Elsewhere, tmp_path: Path
) -> None:
    await staging.prepare()
    await there.prepare()
    await there.create(UPLOAD_ID, tenant_id=TENANT_ID, size_bytes=4)
    assert staging.kind == StagingKind.DIRECTORY

    async with staging.region(
        staged_in(StagingKind.OBJECTS), index=0, offset=0, size_bytes=4
    ) as region:
        await region.complete(memoryview(b"abcd"), watch=Sha256())

    assert (tmp_path / "there" / str(UPLOAD_ID)).read_bytes() == b"abcd"


async def test_an_upload_is_removed_wherever_it_is(
    here: DirectoryArea, there: Elsewhere, tmp_path: Path
) -> None:
    staging = Staging(here, other=there)
    await staging.prepare()
    await there.prepare()
    await staging.create(UPLOAD_ID, tenant_id=TENANT_ID, size_bytes=4)
    await there.create(UPLOAD_ID, tenant_id=TENANT_ID, size_bytes=4)

    await staging.remove(UPLOAD_ID, tenant_id=TENANT_ID)

    assert not (tmp_path / "here" / str(UPLOAD_ID)).exists()
    assert not (tmp_path / "there" / str(UPLOAD_ID)).exists()
    staging.close()


async def test_the_other_area_is_made_for_an_upload_in_it_and_for_nothing_else(
    here: DirectoryArea, there: Elsewhere
) -> None:
    made = 0

    def make() -> Elsewhere:
        nonlocal made
        made += 1
        return there

    staging = Staging(here, make_other=make)
    await staging.prepare()
    await there.prepare()
    await there.create(UPLOAD_ID, tenant_id=TENANT_ID, size_bytes=4)
    await staging.remove(UploadId(uuid4()), tenant_id=TENANT_ID)
    assert made == 0

    async def touch() -> None:
        async with staging.region(staged_in(StagingKind.OBJECTS), index=0, offset=0, size_bytes=4):
            pass

    await asyncio.gather(touch(), touch())
    assert made == 1
    staging.close()


async def test_the_other_area_is_ready_when_it_is_first_used(
    staging: Staging, tmp_path: Path
) -> None:
    await staging.prepare()

    with pytest.raises(StagingMissing):
        async with staging.region(staged_in(StagingKind.OBJECTS), index=0, offset=0, size_bytes=4):
            pass

    assert is_there(tmp_path / "there")


async def test_without_the_other_area_its_uploads_are_elsewhere(here: DirectoryArea) -> None:
    staging = Staging(here)

    with pytest.raises(StagingElsewhere):
        async with staging.region(staged_in(StagingKind.OBJECTS), index=0, offset=0, size_bytes=4):
            pass
    staging.close()


async def test_a_comparison_keeps_nothing_and_tells_the_digest(staging: Staging) -> None:
    watch, sink = Sha256(), staging.comparison()

    await sink.append(memoryview(b"ab"), watch=watch)

    assert await sink.complete(memoryview(b"c"), watch=watch) == hashlib.sha256(b"abc").digest()
