"""Identifies the processes of a stack.

A pid can be reused. A pid together with its start time (clock ticks since boot, from
`/proc`) is unique until the next boot. Every process of a stack has the stack's id in its
environment.
"""

import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil

MARKER: Final = "WAYBILL_STACK_ID"
_DEAD_STATES: Final = frozenset({"Z", "X"})
_START_TIME: Final = 19  # field 22 of proc(5) stat, counted from the field after the name


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Return the start time of a living process in clock ticks since boot; None if it is dead.

    A zombie counts as dead: a container may have no process that collects it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_start_ticks(stat)


def parse_start_ticks(stat: str) -> int | None:
    fields = stat.rpartition(")")[2].split()  # the name before it may contain any character
    return None if fields[0] in _DEAD_STATES else int(fields[_START_TIME])


def is_alive(pid: int, *, started: int) -> bool:
    return start_ticks(pid) == started


def find(pid: int, *, started: int) -> psutil.Process | None:
    """Return the process with this pid and start time; None if it has ended."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
    return process if is_alive(pid, started=started) else None


def descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has ended
            found.extend(process.children(recursive=True))
    return found


def marked(stack_id: str) -> list[psutil.Process]:
    """Return every living process whose environment contains the stack's id."""
    return [
        process
        for process in psutil.process_iter()
        if _environment(process).get(MARKER) == stack_id and start_ticks(process.pid) is not None
    ]


def in_session(session_id: int) -> list[psutil.Process]:
    """Return the living processes of a session; every supervised process leads one."""
    return [process for process in psutil.process_iter() if _session(process.pid) == session_id]


def wait_until_gone(
    processes: Sequence[psutil.Process], *, timeout: timedelta
) -> list[psutil.Process]:
    """Wait for processes to end; return those still alive after the timeout."""
    _, remaining = psutil.wait_procs(processes, timeout=timeout.total_seconds())
    return [process for process in remaining if start_ticks(process.pid) is not None]


def kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has ended
            process.send_signal(signal.SIGKILL)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
        return {}  # another user's process, or one that has ended


def _session(pid: int) -> int | None:
    try:
        session_id = os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
    return None if start_ticks(pid) is None else session_id
