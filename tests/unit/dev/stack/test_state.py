import os
from pathlib import Path

import msgspec

from dev.stack import ownership, state
from dev.stack.state import (
    Phase,
    ProcessRecord,
    ProcessState,
    StackRecord,
    SupervisorRecord,
)


def record(*, boot_id: str) -> StackRecord:
    began = ownership.start_ticks(os.getpid()) or 0
    return StackRecord(
        boot_id=boot_id,
        stack_id="5eed",
        phase=Phase.RUNNING,
        supervisor=SupervisorRecord(pid=os.getpid(), started=began),
        processes={
            "transfer": ProcessRecord(
                pid=os.getpid(),
                started=began,
                state=ProcessState.READY,
                restarts=2,
                stop_signal=15,
                log_file="transfer.log",
            ),
            "relay": ProcessRecord(
                pid=None,
                started=None,
                state=ProcessState.STOPPED,
                restarts=0,
                stop_signal=15,
                log_file="relay.log",
            ),
        },
    )


def test_a_saved_record_is_read_back_unchanged(tmp_path: Path) -> None:
    saved = record(boot_id=ownership.boot_id())

    state.save(tmp_path, saved)
    loaded = state.load(tmp_path)

    assert loaded == saved
    transfer = saved.processes["transfer"].find()
    assert transfer is not None
    assert transfer.pid == os.getpid()
    assert saved.processes["relay"].find() is None


def test_a_record_of_an_earlier_boot_is_ignored(tmp_path: Path) -> None:
    state.save(tmp_path, record(boot_id="another"))

    assert state.load(tmp_path) is None


def test_a_directory_without_a_stack_has_no_record(tmp_path: Path) -> None:
    state.clear(tmp_path)

    assert state.load(tmp_path) is None


def test_the_record_is_json(tmp_path: Path) -> None:
    state.save(tmp_path, record(boot_id=ownership.boot_id()))

    written = msgspec.json.decode((tmp_path / state.FILE_NAME).read_bytes())

    assert written["processes"]["transfer"]["pid"] == os.getpid()
    assert written["processes"]["transfer"]["state"] == "ready"
