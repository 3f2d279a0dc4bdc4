"""The supervisor of `make up`: starting and stopping its process."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil

from dev.stack.checkout import CHECKOUT

# Longer than the sum of the grace periods of all processes.
STOP_TIMEOUT: Final = timedelta(minutes=3)


class Daemon:
    """A supervisor process that starts up."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def progress(self) -> Iterator[str]:
        """Yield lines of progress until the stack is ready or has failed."""
        if self._process.stdout is not None:
            for line in self._process.stdout:
                yield line.rstrip("\n")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def launch(state_dir: Path, *, services: Sequence[str]) -> Daemon:
    """Start a supervisor in its own session, which Ctrl-C does not reach."""
    log_dir = state_dir / "log"
    log_dir.mkdir(parents=True, exist_ok=True)
    with (log_dir / "stack.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.stack.supervise", str(state_dir), *services],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    return Daemon(process)


def stop(supervisor: psutil.Process) -> None:
    """Ask a supervisor to stop everything and wait for its end; kill it after the timeout."""
    supervisor.send_signal(signal.SIGTERM)
    try:
        supervisor.wait(STOP_TIMEOUT.total_seconds())
    except psutil.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
