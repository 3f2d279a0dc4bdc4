import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Never, cast

import pytest

from pipeline.ingest.sandbox.fork import (
    Answer,
    AnswerLimits,
    Child,
    ChildDied,
    ChildOutOfMemory,
    ChildOutputTooLarge,
    ChildTimedOut,
    Send,
    TimeBudget,
    TimeLimitReached,
    time_limit,
)
from schemas.settings import MIB
from tests.integration.sandbox.conftest import NewChildren
from tests.integration.sandbox.forked import LIMITS, Work, forked, watched

SHORT = replace(LIMITS, idle=timedelta(seconds=0.2))


def run(work: Work, *, limits: AnswerLimits = LIMITS) -> list[bytes]:
    with forked(work, limits=limits) as frames:
        return list(frames)


def send_pid_and_block(send: Send) -> None:
    send(str(os.getpid()).encode())
    block_for_ever()


def block_for_ever() -> Never:
    while True:
        signal.pause()


def spin_for_ever() -> Never:
    while True:
        pass


def is_gone(pid: int) -> bool:
    """Return whether there is no such process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def open_descriptors() -> set[str]:
    links = Path("/proc/self/fd").iterdir()
    return {f"{link.name} {link.readlink()}" for link in links if link.is_symlink()}


@contextmanager
def nothing_leaks() -> Iterator[None]:
    before = open_descriptors()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    children = NewChildren()
    yield
    assert open_descriptors() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert children() == []


def test_frames_arrive_complete_and_in_order() -> None:
    sent = [b"", b"one", b"x" * 300_000, b"last"]

    def work(send: Send) -> None:
        for frame in sent:
            send(frame)

    with nothing_leaks():
        assert run(work) == sent


def test_an_idle_child_is_killed() -> None:
    with nothing_leaks(), pytest.raises(ChildTimedOut) as raised:
        run(send_pid_and_block, limits=SHORT)
    assert raised.value.exhausted is TimeBudget.IDLE


class FakeChild:
    """A child with so much CPU time at each look; it ends at the last one."""

    def __init__(self, *cpu_seconds: float) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.channel = self._ours.fileno()
        self._looks = list(cpu_seconds)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()

    def send(self, content: bytes) -> None:
        self._theirs.sendall(content)

    def cpu_seconds(self) -> float:
        if len(self._looks) == 1:
            self._theirs.close()
            return self._looks[0]
        return self._looks.pop(0)

    def receive(self) -> bytes:
        return self._ours.recv(1)

    def check_ending(self, failure: str) -> Never:
        del failure
        raise ChildDied(signal_number=None, exit_status=0, traceback="")


def ending_of(child: FakeChild, *, seconds_per_look: float) -> Exception:
    """Return how a child ends whose parent looks so seldom."""
    answer = Answer(
        cast("Child", child),
        limits=LIMITS,
        while_waiting=lambda: None,
        clock=partial(next, count(0, seconds_per_look)),
    )
    with closing(child), pytest.raises((ChildDied, ChildTimedOut)) as ending:
        next(answer)
    return ending.value


def test_a_child_that_gets_a_hundredth_of_the_cpu_is_not_idle() -> None:
    starved = FakeChild(*(0.03 * look for look in range(500)))
    ending = ending_of(starved, seconds_per_look=3)
    assert isinstance(ending, ChildDied)


def test_a_child_that_uses_no_cpu_time_is_idle_also_after_it_has_worked() -> None:
    stuck = FakeChild(0, 1, 2, *(2.01 for _ in range(1000)))
    ending = ending_of(stuck, seconds_per_look=3)
    assert isinstance(ending, ChildTimedOut)
    assert ending.exhausted is TimeBudget.IDLE


def test_a_child_is_not_idle_while_its_parent_works() -> None:
    now = 0.0

    def pass_by(seconds: float) -> float:
        nonlocal now
        now += seconds
        return now

    def work() -> None:
        pass_by(2 * LIMITS.idle.total_seconds())

    child = FakeChild(*(0.0 for _ in range(40)))
    child.send(bytes(5))  # a frame without content
    answer = Answer(
        cast("Child", child), limits=LIMITS, while_waiting=work, clock=lambda: pass_by(0.3)
    )
    with closing(child):
        assert next(answer) == b""
        work()  # between two frames; then while it waits
        with pytest.raises(ChildDied):
            next(answer)


def test_a_child_that_uses_up_its_cpu_time_is_ended() -> None:
    def work(send: Send) -> None:
        send(str(os.getpid()).encode())
        while True:
            pass

    # Without the parent's watch, CPU time is limited in whole seconds.
    limits = replace(LIMITS, cpu=timedelta(seconds=0.5))
    with forked(work, limits=limits) as frames, watched(int(next(frames))) as has_ended:
        assert has_ended()
        with pytest.raises(ChildTimedOut) as raised:
            next(frames)
    assert raised.value.exhausted is TimeBudget.CPU


def spin_after(*frames: bytes) -> Work:
    def work(send: Send) -> None:
        for frame in frames:
            send(frame)
        spin_for_ever()

    return work


def test_a_child_that_exceeds_its_cpu_time_is_killed_by_its_waiting_parent() -> None:
    with nothing_leaks(), pytest.raises(ChildTimedOut) as raised:
        run(spin_after(), limits=replace(LIMITS, cpu=timedelta(seconds=0.2)))
    assert raised.value.exhausted is TimeBudget.CPU


def test_a_child_that_spends_too_long_on_one_frame_is_killed() -> None:
    received: list[bytes] = []
    limits = replace(LIMITS, frame_cpu=timedelta(seconds=0.2))
    with (
        nothing_leaks(),
        pytest.raises(ChildTimedOut) as raised,
        forked(spin_after(b"1", b"2"), limits=limits) as answer,
    ):
        received.extend(answer)
    assert raised.value.exhausted is TimeBudget.FRAME_CPU
    assert received == [b"1", b"2"]


def test_a_sleeping_child_does_not_use_up_its_cpu_time() -> None:
    def work(send: Send) -> None:
        select.select([], [], [], 0.5)
        send(b"awake")

    limits = replace(LIMITS, cpu=timedelta(seconds=0.2), frame_cpu=timedelta(seconds=0.2))
    with forked(work, limits=limits) as answer:
        assert list(answer) == [b"awake"]
    assert answer.cpu < timedelta(seconds=0.2)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_the_signal_that_ended_a_child_is_reported(number: signal.Signals) -> None:
    def work(send: Send) -> None:
        send(b"so far")
        os.kill(os.getpid(), number)

    received: list[bytes] = []
    with nothing_leaks(), pytest.raises(ChildDied) as death, forked(work) as frames:
        received.extend(frames)
    assert death.value.signal_number == number
    assert received == [b"so far"]


def test_an_error_in_the_work_is_reported_with_its_traceback() -> None:
    def work(_: Send) -> None:
        Path("/nowhere").read_bytes()

    with nothing_leaks(), pytest.raises(ChildDied) as death:
        run(work)
    assert death.value.exit_status == 1
    assert "FileNotFoundError" in death.value.traceback


def test_a_child_over_its_memory_limit_is_out_of_memory() -> None:
    def work(send: Send) -> None:
        send(b"%d" % len(b"x" * (512 * MIB)))

    with nothing_leaks(), pytest.raises(ChildOutOfMemory):
        run(work)


def test_the_memory_limit_is_on_top_of_the_inherited_memory() -> None:
    ballast = bytearray(300 * MIB)

    def work(send: Send) -> None:
        send(b"%d" % len(b"x" * (200 * MIB)))

    assert run(work) == [b"%d" % (200 * MIB)]
    assert len(ballast) == 300 * MIB


def test_a_frame_over_its_limit_ends_the_child() -> None:
    def work(send: Send) -> None:
        send(b"x" * (MIB + 1))

    with nothing_leaks(), pytest.raises(ChildOutputTooLarge):
        run(work)


def test_output_over_its_limit_ends_the_child() -> None:
    def work(send: Send) -> None:
        while True:
            send(b"x" * 1000)

    with nothing_leaks(), pytest.raises(ChildOutputTooLarge):
        run(work)


def test_a_child_is_gone_after_an_early_exit_from_the_block() -> None:
    with nothing_leaks():
        with forked(send_pid_and_block) as frames:
            pid = int(next(frames))
            assert not is_gone(pid)
        assert is_gone(pid)


def test_a_child_is_gone_after_an_error_in_the_block() -> None:
    pids: list[int] = []

    def fail_inside() -> None:
        with forked(send_pid_and_block) as frames:
            pids.append(int(next(frames)))
            raise ZeroDivisionError

    with nothing_leaks():
        with pytest.raises(ZeroDivisionError):
            fail_inside()
        assert is_gone(pids[0])


def test_a_child_is_gone_after_its_block_is_garbage_collected() -> None:
    with nothing_leaks():
        block = forked(send_pid_and_block)
        pid = int(next(block.__enter__()))
        del block
        gc.collect()
        assert is_gone(pid)


class SoftTimeLimit(Exception):
    """Raised from a signal handler at any point of the code, as Celery does."""


def test_a_child_is_gone_after_a_signal_handler_interrupts_the_wait() -> None:
    def interrupt(_signal: int, _frame: FrameType | None) -> Never:
        raise SoftTimeLimit

    former = signal.signal(signal.SIGUSR1, interrupt)
    parent = os.getpid()
    pids: list[int] = []

    def work(send: Send) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        send(str(os.getpid()).encode())
        signal.sigwait({signal.SIGUSR2})
        os.kill(parent, signal.SIGUSR1)
        block_for_ever()

    def wait_for_more() -> None:
        with forked(work) as frames:
            pids.append(int(next(frames)))
            os.kill(pids[0], signal.SIGUSR2)
            next(frames)

    try:
        with nothing_leaks():
            with pytest.raises(SoftTimeLimit):
                wait_for_more()
            assert is_gone(pids[0])
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_a_child_does_not_run_the_parents_signal_handlers() -> None:
    former = signal.signal(signal.SIGUSR1, lambda *_: None)

    def work(send: Send) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        send(b"survived")

    try:
        with pytest.raises(ChildDied) as death:
            run(work)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert death.value.signal_number == signal.SIGUSR1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_child_ignores_the_signals_that_stop_a_service(
    number: signal.Signals,
) -> None:
    def work(send: Send) -> None:
        os.kill(os.getpid(), number)
        send(b"still here")

    assert run(work) == [b"still here"]


def test_a_child_does_not_keep_the_parents_connections_open() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, forked(send_pid_and_block) as frames:
        next(frames)
        theirs.close()
        ours.settimeout(5)
        assert ours.recv(1) == b""  # end of file: no process has the other end


def test_a_child_has_only_standard_streams_and_its_pipe() -> None:
    def work(send: Send) -> None:
        listed = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208  # only the numbers matter
        send(b"%d" % len([number for number in listed if number > 2 and is_open(number)]))

    assert run(work) == [b"1"]


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_child_cannot_write_files(tmp_path: Path) -> None:
    def work(_: Send) -> None:
        (tmp_path / "written").write_bytes(b"x")

    with pytest.raises(ChildDied) as death:
        run(work)
    assert death.value.signal_number == signal.SIGXFSZ


def test_a_child_imports_a_module_without_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(send: Send) -> None:
        send(importlib.import_module("without_bytecode").SAID)

    (tmp_path / "without_bytecode.py").write_text("SAID = b'imported'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    assert run(work) == [b"imported"]


def test_a_child_dies_with_its_parent() -> None:
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        with forked(send_pid_and_block) as frames:
            os.write(write_end, next(frames))
            block_for_ever()
    child = int(os.read(read_end, 20))
    os.close(read_end)
    os.close(write_end)
    with watched(child) as has_ended:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        assert has_ended()


def test_a_child_never_runs_the_code_after_its_block(capfd: pytest.CaptureFixture[str]) -> None:
    def leave(_: Send) -> None:
        raise SystemExit(0)

    with pytest.raises(ChildDied):
        run(leave)
    assert os.write(1, b"once\n") == 5
    assert capfd.readouterr().out == "once\n"


def interrupted(work: Callable[[], object]) -> Work:
    def limited(send: Send) -> None:
        try:
            with time_limit(timedelta(milliseconds=50)):
                work()
        except TimeLimitReached:
            send(b"interrupted")
        send(b"and on")

    return limited


def test_a_slow_step_is_interrupted_and_the_work_continues() -> None:
    assert run(interrupted(spin_for_ever)) == [b"interrupted", b"and on"]


def test_code_that_catches_every_exception_is_interrupted() -> None:
    def stubborn() -> None:
        while True:
            try:
                spin_for_ever()
            except Exception:  # noqa: BLE001, S112  # what parsers do
                continue

    assert run(interrupted(stubborn)) == [b"interrupted", b"and on"]


def test_the_alarm_is_off_after_a_step_that_ends_in_time() -> None:
    def work(send: Send) -> None:
        with time_limit(timedelta(seconds=60)):
            send(str(signal.getitimer(signal.ITIMER_PROF)[0] > 0).encode())
        send(str(signal.getitimer(signal.ITIMER_PROF)[0] > 0).encode())

    assert run(work) == [b"True", b"False"]


def test_a_step_inside_another_one_is_interrupted_alone() -> None:
    def work(send: Send) -> None:
        with time_limit(timedelta(seconds=60)):
            try:
                with time_limit(timedelta(milliseconds=50)):
                    spin_for_ever()
            except TimeLimitReached:
                left = signal.getitimer(signal.ITIMER_PROF)[0]
                send(b"outer goes on" if 50 < left < 60 else str(left).encode())

    assert run(work) == [b"outer goes on"]


def test_a_step_inside_another_one_ends_with_it() -> None:
    def work(send: Send) -> None:
        try:
            with time_limit(timedelta(milliseconds=50)), time_limit(timedelta(seconds=60)):
                spin_for_ever()
        except TimeLimitReached:
            send(b"interrupted")

    assert run(work) == [b"interrupted"]
