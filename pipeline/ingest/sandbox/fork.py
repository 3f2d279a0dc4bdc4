"""Runs work in a forked child that can be killed without harm to its parent.

A fork of the warm process takes milliseconds, a new interpreter half a second.
A Celery pool process is daemonic and may not use `multiprocessing`. Linux only.
"""

import ctypes
import faulthandler
import gc
import math
import os
import resource
import selectors
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, NoReturn

Send = Callable[[bytes], None]
Work = Callable[[Send], None]

_FRAME: Final = struct.Struct(">BI")  # kind, length
_CONTENT: Final = 0
_TRACEBACK: Final = 1
_TRACEBACK_MAX: Final = 4_000
_READ_SIZE: Final = 64 * 1024
_EXIT_FAILED: Final = 1
_EXIT_OUT_OF_MEMORY: Final = 77
_PR_SET_PDEATHSIG: Final = 1
_ALARM_INTERVAL: Final = 0.1
_CALL_INTERVAL: Final = 1.0
_STANDARD_STREAMS: Final = frozenset({0, 1, 2})
# A terminal or service manager sends these to the whole process group when it stops. The
# child ignores them: the worker decides about the document, and its death ends the child.
_STOP_SIGNALS: Final = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM},
)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """Limits of a child.

    Attributes:
        wait: total time that the parent waits for frames; the parent's own work
            between frames does not count. Also the child's CPU time.
        memory_bytes: address space on top of what the child inherits.
        frame_bytes: size of one frame.
        output_bytes: size of all frames.
    """

    wait: timedelta
    memory_bytes: int
    frame_bytes: int
    output_bytes: int


class ChildTimedOut(Exception):
    """The child exceeded its time and was killed."""


class ChildOutOfMemory(Exception):
    """The child exceeded its memory."""


class ChildOutputTooLarge(Exception):
    """The child sent too much and was killed."""


class ChildDied(Exception):
    """The child ended by a signal from outside or by an error in its work.

    Attributes:
        signal_number: the signal, if a signal ended it.
        exit_status: the exit status, if it exited.
        traceback: the traceback of its work; for logs, not for users.
    """

    def __init__(
        self, *, signal_number: int | None, exit_status: int | None, traceback: str
    ) -> None:
        self.signal_number = signal_number
        self.exit_status = exit_status
        self.traceback = traceback
        super().__init__(f"child ended by signal {signal_number}, exit status {exit_status}")


class TimeLimitReached(BaseException):
    """A step exceeded its `time_limit`.

    Not an `Exception`, because parsers catch those and continue.
    """


@contextmanager
def forked(
    work: Work, *, limits: ChildLimits, while_waiting: Callable[[], None] = lambda: None
) -> Iterator[Iterator[bytes]]:
    """Run `work(send)` in a child; yield an iterator over the frames it sends.

    While the parent waits for a frame, it calls `while_waiting` once a second. What this call
    raises ends the block.

    When the block ends, in whatever way, the child is killed and reaped and its pipe closed.

    The child inherits the parent's memory only: no file or socket, no signal handler.
    Its standard streams are the null device. It cannot write files.

    Raises, from the iterator:
        ChildTimedOut, ChildOutOfMemory, ChildOutputTooLarge, ChildDied.
    """
    # An exception from a signal handler (Celery's soft time limit) right after the
    # fork would leak the child.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        child = _fork(work, limits)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            yield child.frames(while_waiting)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            child.end()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def time_limit(allowed: timedelta) -> Iterator[None]:
    """Interrupt the block after `allowed`; for the child only, because it uses SIGALRM.

    One long call into C is not interrupted; the parent's deadline covers such a call.

    Raises:
        TimeLimitReached: the time is up.
    """
    signal.signal(signal.SIGALRM, _raise_time_limit_reached)
    try:
        # The alarm repeats, because an exception raised in a finalizer is lost.
        signal.setitimer(signal.ITIMER_REAL, allowed.total_seconds(), _ALARM_INTERVAL)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Child:
    """The parent's end of a child."""

    def __init__(self, pid: int, *, pipe: int, limits: ChildLimits) -> None:
        self._pid = pid
        self._pipe = pipe
        self._limits = limits
        self._waited = 0.0
        self._received = 0

    def frames(self, while_waiting: Callable[[], None]) -> Iterator[bytes]:
        buffer = bytearray()
        failure = ""
        with selectors.PollSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while block := self._read(selector, while_waiting):
                buffer += block
                while frame := self._take_frame(buffer):
                    kind, content = frame
                    if kind == _CONTENT:
                        yield content
                    else:
                        failure = content.decode(errors="replace")
        self._check_ending(failure)

    def end(self) -> None:
        """Kill the child if it still runs, reap it, close the pipe."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._pipe)

    def _read(self, selector: selectors.BaseSelector, while_waiting: Callable[[], None]) -> bytes:
        ready = False
        while not ready:
            left = self._limits.wait.total_seconds() - self._waited
            if left <= 0:
                raise ChildTimedOut
            asked = time.monotonic()
            ready = bool(selector.select(min(left, _CALL_INTERVAL)))
            self._waited += time.monotonic() - asked
            if not ready:
                while_waiting()
        block = os.read(self._pipe, _READ_SIZE)
        self._received += len(block)
        if self._received > self._limits.output_bytes:
            raise ChildOutputTooLarge
        return block

    def _take_frame(self, buffer: bytearray) -> tuple[int, bytes] | None:
        if len(buffer) < _FRAME.size:
            return None
        kind, length = _FRAME.unpack_from(buffer)
        if length > self._limits.frame_bytes:
            raise ChildOutputTooLarge
        end = _FRAME.size + length
        if len(buffer) < end:
            return None
        content = bytes(buffer[_FRAME.size : end])
        del buffer[:end]
        return kind, content

    def _check_ending(self, failure: str) -> None:
        # Not reaped here, where a signal handler may interrupt: `end` still needs the process id,
        # and the system may give the id of a reaped process to another process.
        ending = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        if ending is None:
            raise ChildProcessError
        exited = ending.si_code == os.CLD_EXITED
        status = ending.si_status
        if exited and status == 0:
            return
        if exited and status == _EXIT_OUT_OF_MEMORY:
            raise ChildOutOfMemory
        if not exited and status == signal.SIGXCPU:
            raise ChildTimedOut
        raise ChildDied(
            signal_number=None if exited else status,
            exit_status=status if exited else None,
            traceback=failure,
        )


def _fork(work: Work, limits: ChildLimits) -> _Child:
    parent = os.getpid()
    read_end, write_end = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read_end)
        os.close(write_end)
        raise
    if pid == 0:
        _work_and_exit(work, pipe=write_end, parent=parent, limits=limits)
    os.close(write_end)
    return _Child(pid, pipe=read_end, limits=limits)


def _work_and_exit(work: Work, *, pipe: int, parent: int, limits: ChildLimits) -> NoReturn:
    status = _EXIT_FAILED
    try:
        _leave_the_parent(parent, pipe=pipe)
        _limit(limits)
        work(lambda content: _send(pipe, _CONTENT, content))
        status = 0
    except MemoryError:
        status = _EXIT_OUT_OF_MEMORY
    except BaseException:  # noqa: BLE001  # the parent's code would run a second time
        _send(pipe, _TRACEBACK, traceback.format_exc()[-_TRACEBACK_MAX:].encode())
    finally:
        os._exit(status)


def _leave_the_parent(parent: int, *, pipe: int) -> None:
    if _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        os._exit(_EXIT_FAILED)  # the parent died before prctl took effect

    signal.set_wakeup_fd(-1)
    faulthandler.disable()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number in _STOP_SIGNALS else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())

    # If the worker's log is a file, writing to it would violate RLIMIT_FSIZE below.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in _STANDARD_STREAMS:
        os.dup2(nowhere, stream)

    # A collected object of the parent would close its descriptor by number, which
    # may belong to the PDF by then.
    gc.freeze()
    # Otherwise the connections to broker and database stay open, and a job stays
    # claimed, for as long as the child outlives its worker.
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # a lazy listing would close its own descriptor
        descriptor = int(name)
        if descriptor != pipe and descriptor not in _STANDARD_STREAMS:
            with suppress(OSError):  # the descriptor of the listing is already closed
                os.close(descriptor)


def _limit(limits: ChildLimits) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory_bytes)
    # The hard limit sends SIGKILL; the soft limit, one second earlier, sends SIGXCPU.
    _lower(resource.RLIMIT_CPU, math.ceil(limits.wait.total_seconds()) + 1, to_hard=1)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, value: int, *, to_hard: int = 0) -> None:
    _, ceiling = resource.getrlimit(kind)
    hard = value + to_hard
    if ceiling != resource.RLIM_INFINITY:
        hard = min(hard, ceiling)
    resource.setrlimit(kind, (min(value, hard), hard))


def _send(pipe: int, kind: int, content: bytes) -> None:
    left = memoryview(_FRAME.pack(kind, len(content)) + content)
    while left:
        left = left[os.write(pipe, left) :]


def _raise_time_limit_reached(_signal: int, _frame: object) -> NoReturn:
    raise TimeLimitReached
