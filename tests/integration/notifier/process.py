"""The notifier's processes, started as operators start them, and their loops run beside a test."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

_numbers = itertools.count(1)

CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, kw_only=True)
class Process:
    """One ``python -m notifier …`` and what it leaves behind."""

    process: asyncio.subprocess.Process
    log_file: Path
    liveness_file: Path

    @classmethod
    async def start(cls, command: str, *, environment: Mapping[str, str], directory: Path) -> Self:
        log_file = directory / f"{command}-{next(_numbers)}.log"
        liveness_file = log_file.with_suffix(".alive")
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "notifier",
                command,
                cwd=CHECKOUT,
                env={**environment, "LIVENESS_FILE": str(liveness_file)},
                stderr=log,
            )
        return cls(process=process, log_file=log_file, liveness_file=liveness_file)

    async def alive(self) -> None:
        """Return once it says that it works.

        Raises:
            AssertionError: it ended, or took too long; says what it logged.
        """
        async with asyncio.timeout(30):
            while not self.liveness_file.exists():
                assert self.process.returncode is None, self.log_file.read_text()
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """End it as a crash would, with no chance to finish anything."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """Ask it to end and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            return await self.process.wait()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return its log lines of one kind."""
        lines = self.log_file.read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]


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
