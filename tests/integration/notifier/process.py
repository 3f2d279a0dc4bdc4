"""Runs the notifier's processes as operators start them, and its loops inside a test."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.service_process import ServiceProcess, new_log_file, spawn


@dataclass(frozen=True, kw_only=True)
class Process(ServiceProcess):
    """A running ``python -m notifier …`` with its log and liveness file."""

    liveness_file: Path

    @classmethod
    async def start(cls, command: str, *, environment: Mapping[str, str], directory: Path) -> Self:
        log_file = new_log_file(directory, name=command)
        liveness_file = log_file.with_suffix(".alive")
        process = await spawn(
            "notifier",
            command,
            environment={**environment, "LIVENESS_FILE": str(liveness_file)},
            log_file=log_file,
        )
        return cls(process=process, log_file=log_file, liveness_file=liveness_file)

    async def until_alive(self) -> None:
        """Return once the liveness file exists.

        Raises:
            AssertionError: the process ended or took too long; contains its log.
        """
        await self.until(self.liveness_file.exists)


@asynccontextmanager
async def running(loop: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a loop of the notifier during the block, and stop it as SIGTERM does."""
    task = asyncio.create_task(loop)
    try:
        yield task
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
