"""What the supervisor must know of a process to run it."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

Probe = Callable[[datetime], Awaitable[bool]]
"""Says whether the process that was started at this time is ready for work."""

Report = Callable[[str], None]
"""Takes one line of progress for people."""


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    is_ready: Probe
    before_stop: Callable[[], Awaitable[None]] | None = None
    """Done before the stop signal of an orderly stop, within the grace period."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace: timedelta = timedelta(seconds=15)
    start_patience: timedelta = timedelta(seconds=60)
    user_change: tuple[str, ...] = field(default=())
    """Arguments of ``setpriv`` that make the process another user's."""

    def command_line(self) -> tuple[str, ...]:
        """Return the command as it is started: it stops by itself when its supervisor dies."""
        death_signal = self.stop_signal.name.removeprefix("SIG")
        return ("setpriv", "--pdeathsig", death_signal, *self.user_change, "--", *self.command)


def restart_delay(failures: int) -> timedelta:
    """Return how long to wait after the n-th death in a row: doubling, at most ten seconds."""
    doublings = min(failures - 1, 10)
    return min(timedelta(seconds=0.2 * 2**doublings), timedelta(seconds=10))
