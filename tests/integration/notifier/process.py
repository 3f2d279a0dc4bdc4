"""The notifier's processes, started as operators start them, and their loops run beside a test."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.service_process import ServiceProcess, new_log_file, spawn


@dataclass(frozen=True, kw_only=True)
class Process(ServiceProcess):
    """One ``python -m notifier …`` and what it leaves behind."""

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

    async def alive(self) -> None:
        """Return once it says that it works.

        Raises:
            AssertionError: it ended, or took too long; says what it logged.
        """
        await self.until(self.liveness_file.exists)


@asynccontextmanager
async def running(loop: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run one of the notifier's loops beside the test, and stop it as SIGTERM does."""
    task = asyncio.create_task(loop)
    try:
        yield task
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
