"""A few calls at once, while the thread that started them stays awake.

The store may be silent for a minute, and so may a disk; the lease on an upload
runs out sooner. So nothing here waits without a heartbeat.
"""

import contextvars
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from threading import Event
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

SETTLING: Final = timedelta(seconds=5)

T = TypeVar("T")
R = TypeVar("R")


class PartUploadPool(Generic[T]):
    """Runs up to `count` calls at once, and one more aside, and keeps a heart beating.

    Only the thread that made it beats and collects: `on_result` and `heartbeat`
    are called there, and what they or a call raise comes out there, of whatever
    method waits. Leaving the block settles what is left.
    """

    def __init__(
        self,
        count: int,
        *,
        on_result: Callable[[T], None],
        heartbeat: Callable[[], None],
        every: timedelta,
    ) -> None:
        self.abandoned = Event()
        self._count = count
        self._on_result = on_result
        self._heartbeat = heartbeat
        self._rhythm = every.total_seconds()
        self._next_beat = time.monotonic() + self._rhythm
        self._pending: set[Future[T]] = set()
        self._alone: set[Future[Any]] = set()
        self._lanes = ThreadPoolExecutor(max_workers=count, thread_name_prefix="transfer")
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transfer-aside")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.settle()

    def start(self, call: Callable[[], T]) -> None:
        self._pending.add(_submit(self._lanes, call))

    def make_room(self) -> None:
        """Wait until no call waits for a lane: one may, lest a lane be idle between two calls."""
        self._wait_until(lambda: len(self._pending) <= self._count)

    def drain(self) -> None:
        """Wait until every call that was started has ended."""
        self._wait_until(lambda: not self._pending)

    def run(self, call: Callable[[], R]) -> R:
        """Return the result of one call aside, however long it takes."""
        self.beat()
        future = _submit(self._aside, call)
        self._alone = {future}
        self._wait_until(future.done)
        return future.result()

    def beat(self) -> None:
        """Let the heart beat if it is time to."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + self._rhythm
            self._heartbeat()

    def settle(self) -> None:
        """Drop calls not yet begun, tell those under way by `abandoned`, and see them end.

        A call that sends or reads notices at its next block. One that waits for the
        store's answer does not: after `SETTLING` it is left to its own timeout.
        """
        self.abandoned.set()
        for threads in (self._lanes, self._aside):
            threads.shutdown(wait=False, cancel_futures=True)
        # A call that was dropped before it began never counts as done.
        begun = {call for call in self._pending | self._alone if not call.cancelled()}
        wait(begun, timeout=SETTLING.total_seconds())

    def _wait_until(self, is_over: Callable[[], bool]) -> None:
        self._collect(timeout=0)
        while not is_over():
            self._collect(timeout=self._rhythm)
            self.beat()

    def _collect(self, *, timeout: float) -> None:
        waiting = self._pending | {call for call in self._alone if not call.done()}
        done, _ = wait(waiting, timeout=timeout, return_when=FIRST_COMPLETED)
        ended = {call for call in self._pending if call in done}
        self._pending -= ended
        # What was done counts, also where something beside it failed.
        for call in sorted(ended, key=_has_failed):
            self._on_result(call.result())


def _has_failed(call: Future[Any]) -> bool:
    return call.exception() is not None


def _submit(threads: ThreadPoolExecutor, call: Callable[[], R]) -> Future[R]:
    # Log lines of the calls carry the upload they belong to.
    return threads.submit(contextvars.copy_context().run, call)
