"""Ends what a stack left behind whose supervisor was killed."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil

from dev.stack import ownership, state
from dev.stack.errors import ProcessDidNotEnd

# The supervisor's death already told every process to stop; the broker needs the longest.
GRACE: Final = timedelta(seconds=15)
AFTER_KILL: Final = timedelta(seconds=5)


def end(state_dir: Path, *, grace: timedelta = GRACE) -> list[str]:
    """End every process of the stack's last run and return the names of those that still ran.

    Only for a stack whose supervisor is dead. A process is touched only if its pid *and*
    start time are on record, or if it carries the stack's id in its environment.

    Raises:
        ProcessDidNotEnd: something survived SIGKILL; the record stays.
    """
    record = state.load(state_dir)
    if record is None:
        state.clear(state_dir)
        return []
    found = {name: recorded.find() for name, recorded in record.processes.items()}
    alive = {name: process for name, process in found.items() if process is not None}
    # PostgreSQL's children leave their parent's session and hide their environment.
    descendants = ownership.descendants(alive.values())
    for name, process in reversed(alive.items()):
        with suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
            process.send_signal(record.processes[name].stop_signal)
    survivors = ownership.wait_until_gone([*alive.values(), *descendants], patience=grace)
    survivors = [*survivors, *ownership.marked(record.stack_id)]
    ownership.kill(survivors)
    immortal = ownership.wait_until_gone(survivors, patience=AFTER_KILL)
    if immortal:
        raise ProcessDidNotEnd([f"{process.name()} ({process.pid})" for process in immortal])
    state.clear(state_dir)
    return list(alive)
