"""Control of one process of a stack, for tests, the demo and benchmarks."""

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
        """The pid of the process; None while it is down."""
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
        """Send SIGKILL; the supervisor starts a new process, which `wait_ready` waits for."""
        self._loop.run(self._process.kill())

    def halt(self) -> None:
        """Send SIGKILL; the process stays down until `start`."""
        self._loop.run(self._process.halt())

    def stop(self) -> None:
        """Stop the process in an orderly way; it stays down until `start`."""
        self._loop.run(self._process.stop())

    def start(self) -> None:
        """Start the process after `stop` or `halt` and wait until it is ready."""
        self._loop.run(self._start())

    def wait_ready(self, *, timeout: timedelta | None = None) -> None:
        self._loop.run(self._process.wait_ready(max_wait=timeout))

    def signal(self, number: signal.Signals) -> None:
        """Send another signal, such as SIGSTOP."""
        self._process.signal(number)

    async def _start(self) -> None:
        self._process.start()
        await self._process.wait_ready()
