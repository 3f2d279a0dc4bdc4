"""Several gateways over one staging directory; a killed gateway is replaced."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Self

from tests.integration.gateway.process import Process


class Gateways:
    """Gateway processes without a load balancer: clients choose one by its URL."""

    def __init__(self, *, environment: Mapping[str, str], directory: Path) -> None:
        self._environment = environment
        self._directory = directory
        self._processes: list[Process] = []
        self._replacements = asyncio.TaskGroup()
        self._process_started = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def started(
        cls, count: int, *, environment: Mapping[str, str], directory: Path
    ) -> AsyncIterator[Self]:
        """Start this many gateways, with logs in `directory`; kill them at the end.

        Raises:
            ExceptionGroup: the block failed, or the replacement of a gateway did not start.
        """
        gateways = cls(environment=environment, directory=directory)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(gateways._start())
            async with gateways._replacements:
                yield gateways
        finally:
            await asyncio.gather(*(process.kill() for process in gateways._processes))

    @property
    def urls(self) -> list[str]:
        """The URLs of the gateways, including one that was just killed."""
        return [process.url for process in self._processes]

    async def kill_one(self, random: Random) -> None:
        """SIGKILL a random running gateway and start its replacement, without waiting for it."""
        async with asyncio.timeout(60), self._process_started:
            # One gateway stays to answer for what was acknowledged.
            await self._process_started.wait_for(lambda: len(self._running) > 1)
        victim = random.choice(self._running)
        await victim.kill()
        self._replacements.create_task(self._start(replaced=victim))

    @property
    def _running(self) -> list[Process]:
        return [process for process in self._processes if process.is_running]

    async def _start(self, *, replaced: Process | None = None) -> None:
        process = await Process.start(environment=self._environment, directory=self._directory)
        async with self._process_started:
            if replaced is not None:
                self._processes.remove(replaced)
            self._processes.append(process)
            self._process_started.notify_all()
