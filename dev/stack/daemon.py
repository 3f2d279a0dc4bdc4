"""The supervisor of ``make up``, seen from the commands that start and stop it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil

from dev.stack.checkout import CHECKOUT

# Longer than the grace periods of everything it may have to stop.
STOP_PATIENCE: Final = timedelta(minutes=3)


class Daemon:
    """A supervisor that was just started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def progress(self) -> Iterator[str]:
        """Yield its lines until it is ready or has given up."""
        if self._process.stdout is not None:
            for line in self._process.stdout:
                yield line.rstrip("\n")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def launch(state_dir: Path, *, arguments: tuple[str, ...]) -> Daemon:
    """Start a supervisor in a session of its own, where no Ctrl-C reaches it."""
    log_dir = state_dir / "log"
    log_dir.mkdir(parents=True, exist_ok=True)
    with (log_dir / "stack.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.stack.supervise", str(state_dir), *arguments],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    return Daemon(process)


def stop(supervisor: psutil.Process) -> None:
    """Ask a running supervisor to stop everything, wait until it has, or kill it."""
    supervisor.send_signal(signal.SIGTERM)
    try:
        supervisor.wait(STOP_PATIENCE.total_seconds())
    except psutil.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
