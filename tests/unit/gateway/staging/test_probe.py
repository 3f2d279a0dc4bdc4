"""The readiness probe of staging, also with a disk that does not answer."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from gateway.staging import Disk, Staging
from gateway.staging.directory import DirectoryBackend
from gateway.staging.probe import StagingHealth, StagingProbe
from gateway.staging.serial_executor import Threads

pytestmark = pytest.mark.anyio

SHORT = timedelta(milliseconds=50)


class HangingDisk(DirectoryBackend):
    """A directory on a disk that answers once `answers` is set."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, reserve_bytes=0)
        self.calls = 0
        self.answers = threading.Event()
        self._hanging = Threads("hanging")

    async def is_writable(self) -> bool:
        self.calls += 1
        return await self._hanging.run(self.answers.wait)

    def close(self) -> None:
        self.answers.set()
        self._hanging.close()
        super().close()


class CountedCalls:
    """Staging whose calls end when the test sets their futures."""

    def __init__(self) -> None:
        self.primary = self
        self.calls: list[asyncio.Future[bool]] = []

    async def is_writable(self) -> bool:
        call: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.calls.append(call)
        return await call

    async def disk(self) -> None:
        return None


class DiskOf(DirectoryBackend):
    """A directory on a disk with the given space."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        super().__init__(directory, reserve_bytes=disk.reserve_bytes)
        self._given = disk

    async def disk(self) -> Disk:
        return self._given


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[HangingDisk]:
    disk = HangingDisk(tmp_path)
    yield disk
    # While the loop runs: the loop does not close before the hanging thread ends.
    disk.close()


async def test_a_probe_does_not_wait_for_a_hanging_disk(disk: HangingDisk) -> None:
    probe = StagingProbe(Staging(disk), timeout=SHORT)
    begun = time.monotonic()
    assert (await probe.ask()).check == "not answering"
    assert time.monotonic() - begun < 5


async def test_concurrent_probes_share_one_call(disk: HangingDisk) -> None:
    probe = StagingProbe(Staging(disk), timeout=SHORT)
    concurrent = await asyncio.gather(*(probe.ask() for _ in range(20)))
    later = await probe.ask()
    assert {one.check for one in [*concurrent, later]} == {"not answering"}
    assert disk.calls == 1


async def test_a_probe_succeeds_once_the_disk_answers(disk: HangingDisk) -> None:
    probe = StagingProbe(Staging(disk), timeout=SHORT)
    assert (await probe.ask()).check == "not answering"
    disk.answers.set()
    async with asyncio.timeout(20):
        while (await probe.ask()).check != "ok":  # noqa: ASYNC110  # a probe
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("steps", range(6))
async def test_overlapping_probes_do_not_read_each_others_call(steps: int) -> None:
    staging = CountedCalls()
    probe = StagingProbe(cast("Staging", staging), timeout=timedelta(seconds=20))
    async with asyncio.timeout(5):
        first = asyncio.create_task(probe.ask())
        while not staging.calls:  # noqa: ASYNC110  # single steps of the loop are counted
            await asyncio.sleep(0)
        staging.calls[0].set_result(True)
        # After some number of steps the call is finished, and `first` is not resumed yet.
        for _ in range(steps):
            await asyncio.sleep(0)
        second = asyncio.create_task(probe.ask())
        assert (await first).check == "ok"
        while not second.done():
            for call in staging.calls[1:]:
                if not call.done():
                    call.set_result(True)
            await asyncio.sleep(0)
        assert second.result().check == "ok"


@pytest.mark.parametrize(
    ("free_bytes", "expected"),
    [
        (1000, StagingHealth(check="ok", used_percent=0)),
        (219, StagingHealth(check="ok", used_percent=79)),
        (101, StagingHealth(check="ok", used_percent=90)),
        (100, StagingHealth(check="full", used_percent=90)),
        (0, StagingHealth(check="full", used_percent=100)),
    ],
)
async def test_a_disk_is_full_once_only_the_reserve_is_free(
    tmp_path: Path, free_bytes: int, expected: StagingHealth
) -> None:
    disk = Disk(size_bytes=1000, free_bytes=free_bytes, reserve_bytes=100)
    staging = Staging(DiskOf(tmp_path, disk))

    assert await StagingProbe(staging, timeout=timedelta(seconds=20)).ask() == expected
    staging.close()


async def test_a_disk_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    class Removed(DirectoryBackend):
        async def disk(self) -> Disk:
            raise FileNotFoundError

    staging = Staging(Removed(tmp_path, reserve_bytes=0))

    health = await StagingProbe(staging, timeout=timedelta(seconds=20)).ask()
    assert health.check == "unreadable (FileNotFoundError)"
    staging.close()
