"""A forked child that answers requests and can be killed without harm to its parent.

A fork of the warm process takes milliseconds, a new interpreter half a second.
A Celery pool process is daemonic and may not use `multiprocessing`. Linux only.
"""

import ctypes
import faulthandler
import gc
import math
import os
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Final, NoReturn

Send = Callable[[bytes], None]
Serve = Callable[[bytes, Send], None]
"""Answers one request in the child with any number of frames."""

_FRAME: Final = struct.Struct(">BI")  # kind, length
_CONTENT: Final = 0
_TRACEBACK: Final = 1
_END: Final = 2
_LENGTH: Final = struct.Struct(">I")
_TRACEBACK_MAX: Final = 4_000
_READ_SIZE: Final = 64 * 1024
_EXIT_FAILED: Final = 1
_EXIT_OUT_OF_MEMORY: Final = 77
# A child that aborts with so large a share of its memory in use (one part of these) lacked memory.
_MUCH: Final = 4
_PR_SET_PDEATHSIG: Final = 1
_ALARM_INTERVAL: Final = 0.1
# A heartbeat is due once a second; with longer waits between the calls, it could be late by as much.
_CALL_INTERVAL: Final = 0.25
# The kernel counts CPU time in steps; a shorter wait would only repeat the look at the clock.
_CPU_STEP: Final = 0.02
ALL_SIGNALS: Final = signal.valid_signals()
_STANDARD_STREAMS: Final = frozenset({0, 1, 2})
# A terminal or service manager sends these to the whole process group when it stops. The
# child ignores them: the worker decides about the document, and its death ends the child.
_STOP_SIGNALS: Final = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM},
)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """Limits of a child for its whole life.

    Attributes:
        memory_bytes: address space on top of what the child inherits.
        niceness: added to the niceness that it inherits; a nice child leaves the CPU to others.
    """

    memory_bytes: int
    niceness: int = 0


@dataclass(frozen=True, kw_only=True)
class AnswerLimits:
    """Limits of the answer to one request.

    Attributes:
        idle: longest time that the parent waits while the child uses no CPU time: the child waits
            for something that never comes. The parent's own work between frames does not count. A
            child that gets little of a busy CPU is not idle.
        cpu: CPU time of the child.
        frame_cpu: CPU time of the child for one frame, while the parent waits for the frame.
        frame_bytes: size of one frame.
        output_bytes: size of all frames.
    """

    idle: timedelta
    cpu: timedelta
    frame_cpu: timedelta
    frame_bytes: int
    output_bytes: int


class TimeBudget(Enum):
    """What a child that was killed for its slowness had used up."""

    IDLE = "idle"
    CPU = "cpu"
    FRAME_CPU = "frame_cpu"


class ChildTimedOut(Exception):
    """The child exceeded its time and was killed.

    Attributes:
        exhausted: the limit that it exceeded.
    """

    def __init__(self, exhausted: TimeBudget) -> None:
        self.exhausted = exhausted
        super().__init__(exhausted.value)


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
def time_limit(allowed: timedelta) -> Iterator[None]:
    """Interrupt the block after `allowed` CPU time; for the child only, because it uses SIGPROF.

    CPU time, because other processes may take most of the wall time. One long call into C is not
    interrupted; the parent's limits cover such a call. A limit inside of another one ends with
    it at the latest, and the outer limit goes on afterwards.

    Raises:
        TimeLimitReached: the time is up.
    """
    signal.signal(signal.SIGPROF, _raise_time_limit_reached)
    seconds = allowed.total_seconds()
    outer, _ = signal.getitimer(signal.ITIMER_PROF)
    started = time.process_time()
    try:
        # The alarm repeats, because an exception raised in a finalizer is lost.
        signal.setitimer(
            signal.ITIMER_PROF, min(seconds, outer) if outer else seconds, _ALARM_INTERVAL
        )
        yield
    finally:
        if outer:
            left = max(outer - (time.process_time() - started), _ALARM_INTERVAL)
            signal.setitimer(signal.ITIMER_PROF, left, _ALARM_INTERVAL)
        else:
            signal.setitimer(signal.ITIMER_PROF, 0)


class Answer(Iterator[bytes]):
    """The frames of the answer to one request.

    Iterating raises ChildTimedOut, ChildOutOfMemory, ChildOutputTooLarge or ChildDied.

    Attributes:
        is_complete: whether the child has sent the last frame, and waits for the next request.
    """

    def __init__(
        self,
        child: "Child",
        *,
        limits: AnswerLimits,
        while_waiting: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_complete = False
        self._child = child
        self._limits = limits
        self._while_waiting = while_waiting
        self._clock = clock
        self._received_bytes = 0
        self._idle = 0.0
        self._cpu_at_start = child.cpu_seconds()
        self._cpu_now = self._cpu_at_block = self._cpu_before_idle = self._cpu_at_start
        self._frames = self._receive()

    def __next__(self) -> bytes:
        return next(self._frames)

    @property
    def cpu(self) -> timedelta:
        """CPU time of the child for this answer, as of the last look at it or the end of the answer.

        While the parent waits, it looks four times a second.
        """
        return timedelta(seconds=self._cpu_now - self._cpu_at_start)

    def end(self) -> None:
        """Record the CPU time of the child, which is unknown once the child is reaped."""
        self._cpu_now = self._child.cpu_seconds()

    def _receive(self) -> Iterator[bytes]:
        buffer = bytearray()
        failure = ""
        with selectors.PollSelector() as selector:
            selector.register(self._child.channel, selectors.EVENT_READ)
            while block := self._read(selector):
                buffer += block
                while frame := self._take_frame(buffer):
                    kind, content = frame
                    if kind == _CONTENT:
                        yield content
                    elif kind == _END:
                        self.is_complete = not buffer
                        return
                    else:
                        failure = content.decode(errors="replace")
        self._child.check_ending(failure)

    def _read(self, selector: selectors.BaseSelector) -> bytes:
        """Return the next bytes; empty once the child has closed its end."""
        next_call = self._clock() + _CALL_INTERVAL
        ready = False
        while not ready:
            time_left = self._time_left()
            asked = self._clock()
            ready = bool(selector.select(min(time_left, max(next_call - asked, 0))))
            now = self._clock()
            self._idle += now - asked
            if not ready and now >= next_call:
                self._while_waiting()
                next_call = self._clock() + _CALL_INTERVAL
        block = self._child.receive()
        self._idle = 0.0
        self._cpu_now = self._cpu_at_block = self._cpu_before_idle = self._child.cpu_seconds()
        self._received_bytes += len(block)
        if self._received_bytes > self._limits.output_bytes:
            raise ChildOutputTooLarge
        return block

    def _time_left(self) -> float:
        """Return how many seconds pass at least until a limit is reached.

        Raises:
            ChildTimedOut: one is reached.
        """
        cpu = self._cpu_now = self._child.cpu_seconds()
        if cpu - self._cpu_before_idle >= _CPU_STEP:
            self._idle, self._cpu_before_idle = 0.0, cpu
        left = {
            TimeBudget.IDLE: self._limits.idle.total_seconds() - self._idle,
            TimeBudget.CPU: self._limits.cpu.total_seconds() - (cpu - self._cpu_at_start),
            TimeBudget.FRAME_CPU: self._limits.frame_cpu.total_seconds()
            - (cpu - self._cpu_at_block),
        }
        nearest = min(left, key=lambda budget: left[budget])
        if left[nearest] <= 0:
            raise ChildTimedOut(nearest)
        return max(left[nearest], _CPU_STEP)

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


@dataclass(frozen=True, kw_only=True)
class _Ending:
    """How a child ended, and what it used; `status` as `os.wait4` returns it."""

    status: int
    cpu_seconds: float
    resident_bytes_max: int


class Child:
    """The parent's end of a child.

    The child inherits the parent's memory only: no file or socket, no signal handler. Its standard
    streams are the null device. It cannot write files, and dies with its parent.

    Attributes:
        channel: descriptor of the socket to the child.
        limits: the limits of its life.
    """

    def __init__(self, pid: int, *, channel: int, limits: ChildLimits) -> None:
        self.channel = channel
        self.limits = limits
        self._pid = pid
        self._ending: _Ending | None = None
        self._clock = _cpu_clock(pid)
        self._resident_at_start = self._resident_bytes()

    @classmethod
    def fork(cls, serve: Serve, *, limits: ChildLimits) -> "Child":
        """Fork a child that answers requests with `serve`.

        Signals must be blocked: an exception from a signal handler (Celery's soft time limit)
        right after the fork would leak the child.
        """
        parent = os.getpid()
        ours, theirs = (end.detach() for end in socket.socketpair())
        try:
            pid = os.fork()
        except OSError:
            os.close(ours)
            os.close(theirs)
            raise
        if pid == 0:
            _serve_and_exit(serve, channel=theirs, parent=parent, limits=limits)
        os.close(theirs)
        return cls(pid, channel=ours, limits=limits)

    def ask(
        self, request: bytes, *, limits: AnswerLimits, while_waiting: Callable[[], None]
    ) -> Answer:
        """Send a request; while the parent waits for a frame, call `while_waiting` four times a second."""
        # The parent's watch ends while the parent does something else; this limit does not.
        _, hard = resource.prlimit(self._pid, resource.RLIMIT_CPU)
        soft = math.ceil(self.cpu_seconds() + limits.cpu.total_seconds()) + 1
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        resource.prlimit(self._pid, resource.RLIMIT_CPU, (soft, hard))
        answer = Answer(self, limits=limits, while_waiting=while_waiting)
        with suppress(BrokenPipeError):  # the child has died; the answer says how
            _write(self.channel, _LENGTH.pack(len(request)) + request)
        return answer

    @property
    def is_idle(self) -> bool:
        """Whether the child lives and has sent nothing since its last answer."""
        return not select.select([self.channel], [], [], 0)[0]

    def cpu_seconds(self) -> float:
        """CPU time since the fork."""
        if self._ending is not None:
            return self._ending.cpu_seconds
        return time.clock_gettime(self._clock)

    def growth_bytes(self) -> int:
        """Resident memory beyond that at the fork."""
        return self._resident_bytes() - self._resident_at_start

    def receive(self) -> bytes:
        try:
            return os.read(self.channel, _READ_SIZE)
        except ConnectionResetError:  # it died with the request unread
            return b""

    def check_ending(self, failure: str) -> NoReturn:
        """Raise the reason why the child ended before its answer was complete.

        Args:
            failure: the traceback that it sent.
        """
        ending = self._reap()
        signal_number = os.WTERMSIG(ending.status) if os.WIFSIGNALED(ending.status) else None
        exit_status = os.WEXITSTATUS(ending.status) if os.WIFEXITED(ending.status) else None
        if exit_status == _EXIT_OUT_OF_MEMORY:
            raise ChildOutOfMemory
        # A library in C++ aborts when it gets no memory.
        growth = ending.resident_bytes_max - self._resident_at_start
        if signal_number == signal.SIGABRT and growth >= self.limits.memory_bytes // _MUCH:
            raise ChildOutOfMemory
        if signal_number == signal.SIGXCPU:
            raise ChildTimedOut(TimeBudget.CPU)
        raise ChildDied(signal_number=signal_number, exit_status=exit_status, traceback=failure)

    def end(self) -> None:
        """Kill the child if it still runs, reap it, close the channel."""
        if self._ending is None:
            os.kill(self._pid, signal.SIGKILL)
            self._reap()
        os.close(self.channel)

    def _reap(self) -> "_Ending":
        """Wait for the end of the child; its process id is then invalid."""
        # The system may give the id to another process: whoever is interrupted here must not use
        # it again.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
        try:
            _, status, usage = os.wait4(self._pid, 0)
            self._ending = _Ending(
                status=status,
                cpu_seconds=usage.ru_utime + usage.ru_stime,
                resident_bytes_max=usage.ru_maxrss * 1024,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return self._ending

    def _resident_bytes(self) -> int:
        statm = Path(f"/proc/{self._pid}/statm").read_text(encoding="ascii")
        return int(statm.split()[1]) * resource.getpagesize()


def _cpu_clock(pid: int) -> int:
    clock = ctypes.c_int()
    error = _libc.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error != 0:
        raise OSError(error, "clock_getcpuclockid")
    return clock.value


def _serve_and_exit(serve: Serve, *, channel: int, parent: int, limits: ChildLimits) -> NoReturn:
    status = _EXIT_FAILED
    try:
        _leave_the_parent(parent, channel=channel)
        _limit(limits)
        while (request := _receive_request(channel)) is not None:
            serve(request, lambda content: _send(channel, _CONTENT, content))
            _send(channel, _END, b"")
        status = 0
    except MemoryError:
        status = _EXIT_OUT_OF_MEMORY
    except BaseException:  # noqa: BLE001  # the parent's code would run a second time
        _send(channel, _TRACEBACK, traceback.format_exc()[-_TRACEBACK_MAX:].encode())
    finally:
        os._exit(status)


def _leave_the_parent(parent: int, *, channel: int) -> None:
    if _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        os._exit(_EXIT_FAILED)  # the parent died before prctl took effect

    signal.set_wakeup_fd(-1)
    faulthandler.disable()
    for number in ALL_SIGNALS - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number in _STOP_SIGNALS else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())

    # If the worker's log is a file, writing to it would violate RLIMIT_FSIZE below.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in _STANDARD_STREAMS:
        os.dup2(nowhere, stream)

    # A collected object of the parent would close its descriptor by number, which
    # may belong to the document by then.
    gc.freeze()
    # Otherwise the connections to broker and database stay open, and a job stays
    # claimed, for as long as the child outlives its worker.
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # a lazy listing would close its own descriptor
        descriptor = int(name)
        if descriptor != channel and descriptor not in _STANDARD_STREAMS:
            with suppress(OSError):  # the descriptor of the listing is already closed
                os.close(descriptor)


def _limit(limits: ChildLimits) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory_bytes)
    # The import of a module without bytecode would write it, and violate RLIMIT_FSIZE.
    sys.dont_write_bytecode = True
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    os.nice(limits.niceness)


def _lower(kind: int, value: int) -> None:
    _, ceiling = resource.getrlimit(kind)
    if ceiling != resource.RLIM_INFINITY:
        value = min(value, ceiling)
    resource.setrlimit(kind, (value, value))


def _receive_request(channel: int) -> bytes | None:
    """Return the next request; None once the parent has closed its end."""
    header = _read_exactly(channel, _LENGTH.size)
    return None if header is None else _read_exactly(channel, _LENGTH.unpack(header)[0])


def _read_exactly(channel: int, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        block = os.read(channel, size - len(received))
        if not block:
            return None
        received += block
    return bytes(received)


def _send(channel: int, kind: int, content: bytes) -> None:
    _write(channel, _FRAME.pack(kind, len(content)) + content)


def _write(channel: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(channel, left) :]


def _raise_time_limit_reached(_signal: int, _frame: object) -> NoReturn:
    raise TimeLimitReached
