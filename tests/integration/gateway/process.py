"""The gateway's process, started as operators start it."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

_numbers = itertools.count(1)

CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, kw_only=True)
class Process:
    """One ``python -m gateway serve``, where it listens, and what it logs."""

    process: asyncio.subprocess.Process
    log_file: Path
    port: int

    @classmethod
    async def start(cls, *, environment: Mapping[str, str], directory: Path) -> Self:
        """Start it on a free port and return once it listens.

        Raises:
            AssertionError: it ended, or took too long; says what it logged.
        """
        log_file = directory / f"gateway-{next(_numbers)}.log"
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway",
                "serve",
                cwd=CHECKOUT,
                env={**environment, "GATEWAY_PORT": "0"},
                stderr=log,
            )
        started = cls(process=process, log_file=log_file, port=0)
        listening = await started.says("gateway.listening")
        return replace(started, port=listening["port"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def says(self, event: str) -> dict[str, Any]:
        """Return its first log line of one kind, once there is one.

        Raises:
            AssertionError: it ended, or took too long; says what it logged.
        """
        return (await self.logged_times(event, count=1))[0]

    async def logged_times(self, event: str, *, count: int) -> list[dict[str, Any]]:
        """Return its log lines of one kind, once there are so many.

        Raises:
            AssertionError: it ended, or took too long; says what it logged.
        """
        async with asyncio.timeout(60):
            while len(lines := self.logged(event)) < count:
                assert self.process.returncode is None, self.log_file.read_text()
                await asyncio.sleep(0.02)
        return lines

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
        # The last line may be half written yet.
        *lines, _ = self.log_file.read_text().split("\n")
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]


async def run_gateway(*arguments: str, **environment: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        *arguments,
        cwd=CHECKOUT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
