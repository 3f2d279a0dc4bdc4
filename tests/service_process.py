"""A service's process and its log."""

import asyncio
import itertools
import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from tests.forked_process import ForkedProcess, fork

TIMEOUT: Final = timedelta(minutes=3)
"""Bounds a process that hangs; its death is noticed at once."""

_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class ServiceProcess:
    """One ``python -m …``, running or ended."""

    process: ForkedProcess
    log_file: Path

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    async def kill(self) -> None:
        """SIGKILL the process, unless it has ended."""
        if self.is_running:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            return await self.process.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds.

        Raises:
            AssertionError: the process ended or the time is over; the message is its log.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + TIMEOUT.total_seconds()
        while not condition():
            assert self.is_running, self.log_file.read_text()
            assert now() < deadline, self.log_file.read_text()
            await asyncio.sleep(0.02)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log entries of one event."""
        # The last line may be incomplete.
        *lines, _ = self.log_file.read_text().split("\n")
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]


def new_log_file(directory: Path, *, name: str) -> Path:
    return directory / f"{name}-{next(_numbers)}.log"


async def spawn(
    service: str, *arguments: str, environment: Mapping[str, str], log_file: Path
) -> ForkedProcess:
    """Start ``python -m SERVICE ARGUMENTS`` with this environment and no other."""
    with log_file.open("wb") as log:
        return await fork(
            service, *arguments, environment=environment, out=log.fileno(), err=log.fileno()
        )
