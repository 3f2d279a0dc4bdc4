"""The readiness of staging."""

from pathlib import Path

import pytest

from gateway.staging import Disk, Staging
from gateway.staging.directory import DirectoryBackend
from gateway.staging.probe import StagingHealth, probe
from schemas.settings import MIB
from tests.factories.buffers import buffers_of

pytestmark = pytest.mark.anyio


class DiskOf(DirectoryBackend):
    """A directory on a disk with the given space."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        super().__init__(directory, reserve_bytes=disk.reserve_bytes)
        self._given = disk

    async def disk(self) -> Disk:
        return self._given


async def health_of(backend: DirectoryBackend) -> StagingHealth:
    await backend.prepare()
    staging = Staging(backend, buffers=buffers_of(1))
    try:
        return await probe(staging)
    finally:
        staging.close()


@pytest.mark.parametrize(
    ("free_mib", "problem", "used_percent"),
    [
        (1000, "", 0),
        (219, "", 79),
        (101, "", 90),
        (100, "full: 100 MiB", 90),
        (0, "full: 0 MiB", 100),
    ],
)
async def test_a_disk_is_full_once_only_the_reserve_is_free(
    tmp_path: Path, free_mib: int, problem: str, used_percent: int
) -> None:
    disk = Disk(size_bytes=1000 * MIB, free_bytes=free_mib * MIB, reserve_bytes=100 * MIB)

    health = await health_of(DiskOf(tmp_path, disk))

    assert (health.is_full, health.used_percent) == (bool(problem), used_percent)
    assert (health.problem or "").startswith(problem)


async def test_a_disk_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    class Removed(DirectoryBackend):
        async def disk(self) -> Disk:
            raise OSError(5, "Input/output error")

    health = await health_of(Removed(tmp_path, reserve_bytes=0))

    assert health == StagingHealth(problem="unreadable: Input/output error")
