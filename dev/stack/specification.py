"""How the supervisor runs a process."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

Probe = Callable[[datetime], Awaitable[bool]]
"""Returns whether the process started at this time is ready."""

Report = Callable[[str], None]
"""Takes one line of progress."""


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    is_ready: Probe
    before_stop: Callable[[], Awaitable[None]] | None = None
    """Runs before the stop signal, within the grace period."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace: timedelta = timedelta(seconds=15)
    start_timeout: timedelta = timedelta(minutes=3)
    """A process that dies is noticed at once; one that hangs is told from one on a busy machine."""
    user_change: tuple[str, ...] = field(default=())
    """Arguments of `setpriv` that change the user."""

    def command_line(self) -> tuple[str, ...]:
        """Return the full command; the kernel stops the process when its supervisor dies."""
        death_signal = self.stop_signal.name.removeprefix("SIG")
        return ("setpriv", "--pdeathsig", death_signal, *self.user_change, "--", *self.command)


def restart_delay(failures: int) -> timedelta:
    """Return how long to wait after the n-th death in a row: doubling, at most ten seconds."""
    doublings = min(failures - 1, 10)
    return min(timedelta(seconds=0.2 * 2**doublings), timedelta(seconds=10))
