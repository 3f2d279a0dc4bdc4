"""One process of a stack, in the hands of a test, a demo or a benchmark."""

import signal
from datetime import timedelta
from pathlib import Path

from dev.stack.background_loop import BackgroundLoop
from dev.stack.state import ProcessState
from dev.stack.supervised import SupervisedProcess


class ProcessHandle:
    def __init__(self, process: SupervisedProcess, *, loop: BackgroundLoop) -> None:
        self._process = process
        self._loop = loop

    @property
    def pid(self) -> int | None:
        """The pid of the present incarnation; None while there is none."""
        return self._process.pid

    @property
    def state(self) -> ProcessState:
        return self._process.state

    @property
    def restarts(self) -> int:
        return self._process.restarts

    @property
    def log_file(self) -> Path:
        return self._process.log_file

    def kill(self) -> None:
        """SIGKILL it; the supervisor starts it again. ``wait_ready`` waits for the successor."""
        self._loop.run(self._process.kill())

    def halt(self) -> None:
        """SIGKILL it and leave it down until ``start``."""
        self._loop.run(self._process.halt())

    def stop(self) -> None:
        """Ask it to end, and leave it down until ``start``."""
        self._loop.run(self._process.stop())

    def start(self) -> None:
        """Start it after ``stop`` or ``halt`` and wait until it is ready."""
        self._loop.run(self._start())

    def wait_ready(self, *, patience: timedelta | None = None) -> None:
        self._loop.run(self._process.wait_ready(patience=patience))

    def signal(self, number: signal.Signals) -> None:
        """Send any other signal, such as SIGSTOP to make it hang."""
        self._process.signal(number)

    async def _start(self) -> None:
        self._process.start()
        await self._process.wait_ready()
