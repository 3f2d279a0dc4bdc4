"""Several gateways over one staging directory, that die and come back."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Self

from tests.integration.gateway.process import Process


class Gateways:
    """Processes side by side; nobody in front of them says which one is asked."""

    def __init__(self, *, environment: Mapping[str, str], directory: Path) -> None:
        self._environment = environment
        self._directory = directory
        self._processes: list[Process] = []
        self._successions = asyncio.TaskGroup()
        self._came_back = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def started(
        cls, count: int, *, environment: Mapping[str, str], directory: Path
    ) -> AsyncIterator[Self]:
        """Start so many; what runs at the end is killed. Logs go to `directory`.

        Raises:
            ExceptionGroup: the block failed, or a gateway did not start after another.
        """
        gateways = cls(environment=environment, directory=directory)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(gateways._start())
            async with gateways._successions:
                yield gateways
        finally:
            await asyncio.gather(*(process.kill() for process in gateways._processes))

    @property
    def urls(self) -> list[str]:
        """Where they listen, or did until a moment ago."""
        return [process.url for process in self._processes]

    async def kill_one(self, random: Random) -> None:
        """SIGKILL one of those that run and start another in its place; it is not waited for."""
        async with asyncio.timeout(60), self._came_back:
            # One stays, so that there is somebody to answer for what was acked.
            await self._came_back.wait_for(lambda: len(self._living) > 1)
        victim = random.choice(self._living)
        await victim.kill()
        self._successions.create_task(self._start(after=victim))

    @property
    def _living(self) -> list[Process]:
        return [each for each in self._processes if each.is_running]

    async def _start(self, *, after: Process | None = None) -> None:
        process = await Process.start(environment=self._environment, directory=self._directory)
        async with self._came_back:
            if after is not None:
                self._processes.remove(after)
            self._processes.append(process)
            self._came_back.notify_all()
