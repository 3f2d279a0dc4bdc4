"""A staging disk that does not answer: probes still do."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.staging import Staging
from gateway.staging.directory import DirectoryBackend
from gateway.staging.probe import StagingProbe
from gateway.staging.serial_executor import Threads

pytestmark = pytest.mark.anyio

MOMENT = timedelta(milliseconds=50)


class HangingDisk(DirectoryBackend):
    """A directory on a disk that answers when it is told to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, reserve_bytes=0)
        self.asked = 0
        self.answers = threading.Event()
        self._hanging = Threads("hanging")

    async def is_writable(self) -> bool:
        self.asked += 1
        return await self._hanging.run(self.answers.wait)

    def close(self) -> None:
        self.answers.set()
        self._hanging.close()
        super().close()


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[HangingDisk]:
    disk = HangingDisk(tmp_path)
    yield disk
    # While the loop still runs: it does not end before the thread that asks does.
    disk.close()


async def test_a_probe_does_not_wait_for_a_disk_that_hangs(disk: HangingDisk) -> None:
    probe = StagingProbe(Staging(disk), timeout=MOMENT)
    begun = time.monotonic()
    assert await probe.ask() == "not answering"
    assert time.monotonic() - begun < 5


async def test_however_many_probes_come_one_waits_for_the_disk(disk: HangingDisk) -> None:
    probe = StagingProbe(Staging(disk), timeout=MOMENT)
    at_once = await asyncio.gather(*(probe.ask() for _ in range(20)))
    one_more = await probe.ask()
    assert {*at_once, one_more} == {"not answering"}
    assert disk.asked == 1


async def test_once_the_disk_answers_so_does_the_probe(disk: HangingDisk) -> None:
    probe = StagingProbe(Staging(disk), timeout=MOMENT)
    assert await probe.ask() == "not answering"
    disk.answers.set()
    async with asyncio.timeout(20):
        while await probe.ask() != "ok":  # noqa: ASYNC110  # a probe
            await asyncio.sleep(0.01)
