"""Runs several calls at once while the calling thread keeps the lease alive.

The store or a disk may not answer for a minute; the lease expires sooner. So every
wait in this module calls the heartbeat.
"""

import contextvars
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from threading import Event
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

HEARTBEAT_INTERVAL: Final = timedelta(seconds=1)
"""A cancellation is noticed within one interval."""

STOP_TIMEOUT: Final = timedelta(seconds=5)

T = TypeVar("T")
R = TypeVar("R")


class CallPool(Generic[T]):
    """Runs up to `size` part uploads at once, and one other call beside them.

    `on_result` and `heartbeat` are called only in the thread that made the pool, from the
    methods that wait. These methods raise what the callbacks or a call raise. Leaving the
    block stops the pool.
    """

    def __init__(
        self,
        size: int = 1,
        *,
        on_result: Callable[[T], None] = lambda _: None,
        heartbeat: Callable[[], None],
        heartbeat_interval: timedelta = HEARTBEAT_INTERVAL,
    ) -> None:
        self.abandoned = Event()
        self._size = size
        self._on_result = on_result
        self._heartbeat = heartbeat
        self._interval = heartbeat_interval.total_seconds()
        self._next_heartbeat = time.monotonic() + self._interval
        self._pending: set[Future[T]] = set()
        self._single: set[Future[Any]] = set()
        self._part_threads = ThreadPoolExecutor(max_workers=size, thread_name_prefix="transfer")
        self._single_thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="transfer-single"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, upload: Callable[[], T]) -> None:
        self._pending.add(_submit(self._part_threads, upload))

    def wait_for_room(self) -> None:
        """Block until at most one call is queued; one queued call keeps every thread busy."""
        self._wait_until(lambda: len(self._pending) <= self._size)

    def drain(self) -> None:
        """Block until every started call has ended."""
        self._wait_until(lambda: not self._pending)

    def run(self, call: Callable[[], R]) -> R:
        """Run one call beside the parts and return its result."""
        self._beat()
        future = _submit(self._single_thread, call)
        self._single = {future}
        self._wait_until(future.done)
        return future.result()

    def stop(self) -> None:
        """Drop queued calls, set `abandoned` for running calls, and wait until these end.

        A call that sends or reads stops at its next block. A call that waits for the store's
        answer does not stop: after `STOP_TIMEOUT` it is left to its own timeout.
        """
        self.abandoned.set()
        for threads in (self._part_threads, self._single_thread):
            threads.shutdown(wait=False, cancel_futures=True)
        # `wait` would never count a dropped call as done.
        begun = {call for call in self._pending | self._single if not call.cancelled()}
        wait(begun, timeout=STOP_TIMEOUT.total_seconds())

    def _wait_until(self, is_over: Callable[[], bool]) -> None:
        self._collect(timeout=0)
        while not is_over():
            self._collect(timeout=self._interval)
            self._beat()

    def _beat(self) -> None:
        now = time.monotonic()
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._interval
            self._heartbeat()

    def _collect(self, *, timeout: float) -> None:
        waiting = self._pending | {call for call in self._single if not call.done()}
        done, _ = wait(waiting, timeout=timeout, return_when=FIRST_COMPLETED)
        ended = {call for call in self._pending if call in done}
        self._pending -= ended
        # Results are passed on even if another call failed.
        for call in sorted(ended, key=_has_failed):
            self._on_result(call.result())


def _has_failed(call: Future[Any]) -> bool:
    return call.exception() is not None


def _submit(threads: ThreadPoolExecutor, call: Callable[[], R]) -> Future[R]:
    # Log lines of the call carry the ids of its upload.
    return threads.submit(contextvars.copy_context().run, call)
