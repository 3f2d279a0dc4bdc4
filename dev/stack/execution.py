"""How a stack starts its processes and runs its commands."""

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Protocol

from dev.stack.checkout import CHECKOUT
from dev.stack.specification import ProcessSpec


class Child(Protocol):
    """A process that was started; it leads a session of its own."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Return the exit code once the process has ended."""


class Execution(Protocol):
    async def start(self, spec: ProcessSpec, *, log: IO[bytes]) -> Child:
        """Start a process; its output goes to the log."""

    async def run(
        self, command: Sequence[str], *, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""


class Executed:
    """Executes programs, as a user does."""

    async def start(self, spec: ProcessSpec, *, log: IO[bytes]) -> Child:
        return await asyncio.create_subprocess_exec(
            *spec.command_line(),
            cwd=spec.directory,
            env=spec.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    async def run(
        self, command: Sequence[str], *, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            env=environment,
        )
