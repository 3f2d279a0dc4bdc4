"""Ends the processes of a stack whose supervisor was killed."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil

from dev.stack import ownership, state
from dev.stack.errors import ProcessDidNotEnd

# Every process got its stop signal when the supervisor died; the broker takes longest.
GRACE: Final = timedelta(seconds=15)
AFTER_KILL: Final = timedelta(seconds=5)


def end(state_dir: Path, *, grace: timedelta = GRACE) -> list[str]:
    """End every process of the stack's last run; return the names of those that were alive.

    The supervisor must be dead. A process is touched only if its pid and start time are on
    record, or if its environment contains the stack's id.

    Raises:
        ProcessDidNotEnd: a process survived SIGKILL; the record stays.
    """
    record = state.load(state_dir)
    if record is None:
        state.clear(state_dir)
        return []
    found = {name: recorded.find() for name, recorded in record.processes.items()}
    alive = {name: process for name, process in found.items() if process is not None}
    # PostgreSQL's children are in sessions of their own, and their environment is not readable.
    descendants = ownership.descendants(alive.values())
    for name, process in reversed(alive.items()):
        with suppress(psutil.NoSuchProcess):  # it has ended
            process.send_signal(record.processes[name].stop_signal)
    survivors = ownership.wait_until_gone([*alive.values(), *descendants], timeout=grace)
    survivors = [*survivors, *ownership.marked(record.stack_id)]
    ownership.kill(survivors)
    remaining = ownership.wait_until_gone(survivors, timeout=AFTER_KILL)
    if remaining:
        raise ProcessDidNotEnd([f"{process.name()} ({process.pid})" for process in remaining])
    state.clear(state_dir)
    return list(alive)
