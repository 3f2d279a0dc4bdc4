"""The supervisor with small processes that stand in for services."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from dev.stack import leftovers, ownership, state
from dev.stack.checkout import CHECKOUT
from dev.stack.errors import ProcessKeepsDying, ProcessNotReady, StackAlreadyRunning
from dev.stack.handle import ProcessHandle
from dev.stack.services import Readiness, Service
from dev.stack.stack import Stack, discard
from dev.stack.state import ProcessState

WORKS = """
import os, pathlib, signal
pathlib.Path(os.environ["LIVENESS_FILE"]).touch()
signal.pause()
"""
IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + WORKS
HAS_STUBBORN_CHILD = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {IGNORES_SIGTERM!r}])
{WORKS}
"""
DIES = "import sys; sys.exit('there is no configuration')"
NEVER_READY = "import signal; signal.pause()"

# These addresses are never used: they only keep the stack from starting services.
BROUGHT_ALONG = {
    "DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1/none",
    "RABBITMQ_URL": "amqp://127.0.0.1",
    "S3_ENDPOINT_URL": "http://127.0.0.1",
    "S3_ACCESS_KEY_ID": "key",
    "S3_SECRET_ACCESS_KEY": "secret",
}


def stand_in(name: str, program: str, *, stop_grace: timedelta = timedelta(seconds=10)) -> Service:
    return Service(
        name=name,
        command=("python", "-c", program),
        readiness=Readiness.LIVENESS_FILE,
        stop_grace=stop_grace,
    )


TABLE = (
    stand_in("works", WORKS),
    stand_in("stubborn", IGNORES_SIGTERM, stop_grace=timedelta(seconds=0.3)),
    stand_in("parent", HAS_STUBBORN_CHILD),
    stand_in("dies", DIES),
)


@pytest.fixture
def state_dir() -> Iterator[Path]:
    directory = CHECKOUT / "var" / "test" / "supervision"
    discard(directory)
    yield directory
    discard(directory)


@pytest.fixture
def stack(state_dir: Path) -> Iterator[Stack]:
    with Stack(state_dir, settings=BROUGHT_ALONG, table=TABLE) as stack:
        yield stack


def state_of(process: ProcessHandle) -> ProcessState:
    return process.state


def survivors(stack_dir: Path) -> list[psutil.Process]:
    return ownership.marked(json.loads((stack_dir / "identity.json").read_text())["stack_id"])


def test_a_killed_process_is_restarted_and_counted(stack: Stack) -> None:
    stack.start_services("works")
    process = stack.processes["works"]
    first = process.pid

    process.kill()
    process.wait_ready()

    assert process.pid not in {None, first}
    assert process.restarts == 1


def test_pids_are_published_by_name(stack: Stack) -> None:
    stack.start_services("works")

    record = state.load(stack.state_dir)

    assert record is not None
    found = record.processes["works"].find()
    assert found is not None
    assert found.pid == stack.processes["works"].pid


def test_a_halted_process_stays_down_until_it_is_started(stack: Stack) -> None:
    stack.start_services("works")
    process = stack.processes["works"]

    process.halt()
    assert state_of(process) is ProcessState.STOPPED
    assert survivors(stack.state_dir) == []

    process.start()
    assert state_of(process) is ProcessState.READY
    assert process.restarts == 0


def test_a_process_that_keeps_dying_is_an_error_that_shows_its_log(stack: Stack) -> None:
    with pytest.raises(ProcessKeepsDying, match="there is no configuration"):
        stack.start_services("dies")


def test_a_process_that_never_becomes_ready_is_an_error(stack: Stack) -> None:
    stack.start_services("works")
    process = stack.processes["works"]
    process.stop()

    with pytest.raises(ProcessNotReady):
        process.wait_ready(timeout=timedelta(seconds=0.1))


def test_stopping_ends_processes_that_ignore_sigterm_and_their_children(state_dir: Path) -> None:
    with Stack(state_dir, settings=BROUGHT_ALONG, table=TABLE) as stack:
        stack.start_services("stubborn", "parent")
        assert len(survivors(state_dir)) == 3

    assert survivors(state_dir) == []
    assert state.load(state_dir) is None


def test_a_state_directory_has_one_stack_at_a_time(stack: Stack) -> None:
    with pytest.raises(StackAlreadyRunning):
        Stack(stack.state_dir)


SUPERVISOR = """
import signal, sys
from pathlib import Path
from dev.stack.stack import Stack
from tests.integration.dev.test_supervision import BROUGHT_ALONG, TABLE
stack = Stack(Path(sys.argv[1]), settings=BROUGHT_ALONG, table=TABLE)
stack.start_services("works", "stubborn", "parent")
print("ready", flush=True)
signal.pause()
"""


def test_a_killed_supervisor_leaves_no_process(state_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, state_dir],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "ready\n"
        supervisor.send_signal(signal.SIGKILL)

    ended = leftovers.end(state_dir, grace=timedelta(seconds=0.5))

    assert "stubborn" in ended  # the other processes ended with their supervisor
    assert survivors(state_dir) == []
    assert state.load(state_dir) is None
