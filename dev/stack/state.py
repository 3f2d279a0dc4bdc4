"""The file that lists the running processes of a stack.

Other programs find a pid by name::

    state.load(Path("var")).processes["transfer"].pid
"""

from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
import psutil

from dev.stack import ownership, private_files

FILE_NAME: Final = "processes.json"


class Phase(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class ProcessState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting to restart"
    STOPPING = "stopping"
    STOPPED = "stopped"


class ProcessRecord(msgspec.Struct, frozen=True):
    pid: int | None
    started: int | None
    """Clock ticks since boot; identifies the process together with the pid."""
    state: ProcessState
    restarts: int
    stop_signal: int
    log_file: str

    def find(self) -> psutil.Process | None:
        """Return the process if it is alive."""
        if self.pid is None or self.started is None:
            return None
        return ownership.find(self.pid, started=self.started)


class SupervisorRecord(msgspec.Struct, frozen=True):
    pid: int
    started: int

    def find(self) -> psutil.Process | None:
        """Return the supervisor if it is alive."""
        return ownership.find(self.pid, started=self.started)


class StackRecord(msgspec.Struct, frozen=True):
    boot_id: str
    stack_id: str
    phase: Phase
    supervisor: SupervisorRecord
    processes: dict[str, ProcessRecord]
    """In the order of their start."""


def load(state_dir: Path) -> StackRecord | None:
    """Return the record of the stack in `state_dir`; None if it was stopped in an orderly way.

    A record from an earlier boot is ignored.
    """
    try:
        content = (state_dir / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    record = msgspec.json.decode(content, type=StackRecord)
    return record if record.boot_id == ownership.boot_id() else None


def save(state_dir: Path, record: StackRecord) -> None:
    private_files.write(state_dir / FILE_NAME, msgspec.json.encode(record))


def clear(state_dir: Path) -> None:
    (state_dir / FILE_NAME).unlink(missing_ok=True)
