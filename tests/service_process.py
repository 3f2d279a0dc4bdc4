"""A service's process, started as operators start it, and what it leaves behind."""

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from dev.stack.checkout import CHECKOUT

PATIENCE: Final = timedelta(minutes=1)

_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class ServiceProcess:
    """One ``python -m …`` that is running, or has been."""

    process: asyncio.subprocess.Process
    log_file: Path

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    async def kill(self) -> None:
        """End it as a crash would, with no chance to finish anything; unless it has ended."""
        if self.is_running:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> int:
        """Ask it to end and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE.total_seconds()):
            return await self.process.wait()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Return once something is so.

        Raises:
            AssertionError: it ended before, or took too long; says what it logged.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + PATIENCE.total_seconds()
        while not is_so():
            assert self.is_running, self.log_file.read_text()
            assert now() < deadline, self.log_file.read_text()
            await asyncio.sleep(0.02)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return its log lines of one kind."""
        # The last line may be half written yet.
        *lines, _ = self.log_file.read_text().split("\n")
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]


def new_log_file(directory: Path, *, name: str) -> Path:
    return directory / f"{name}-{next(_numbers)}.log"


async def spawn(
    service: str, *arguments: str, environment: Mapping[str, str], log_file: Path
) -> asyncio.subprocess.Process:
    """Start ``python -m SERVICE ARGUMENTS`` with this environment and no other."""
    with log_file.open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", service, *arguments),
            cwd=CHECKOUT,
            env=dict(environment),
            stderr=log,
        )
