"""A few calls at once, while the thread that started them stays awake.

The store may be silent for a minute; the lease on an upload runs out sooner.
So nothing here waits without a heartbeat.
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


class Lanes(Generic[T]):
    """Runs up to `count` calls at once and keeps a heart beating.

    Only the thread that made it beats and collects; what a call or the heartbeat
    raises comes out there. Leaving the block settles what is left.
    """

    def __init__(self, count: int, *, heartbeat: Callable[[], None], every: timedelta) -> None:
        self.abandoned = Event()
        self._count = count
        self._heartbeat = heartbeat
        self._rhythm = every.total_seconds()
        self._next_beat = time.monotonic() + self._rhythm
        self._pending: set[Future[T]] = set()
        self._alone: set[Future[Any]] = set()
        self._threads = ThreadPoolExecutor(max_workers=count, thread_name_prefix="transfer")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.settle()

    @property
    def are_full(self) -> bool:
        """Whether every lane is taken and one call waits already."""
        return len(self._pending) > self._count

    @property
    def are_busy(self) -> bool:
        return bool(self._pending)

    def start(self, call: Callable[[], T]) -> None:
        self._pending.add(self._submit(call))

    def finished(self) -> list[T]:
        """Return the results there are."""
        return self._collect(timeout=0)

    def next_finished(self) -> list[T]:
        """Wait for the next results; there are none if no call is under way."""
        results: list[T] = []
        while self._pending and not results:
            results = self._collect(timeout=self._rhythm)
            self.beat()
        return results

    def run(self, call: Callable[[], R]) -> R:
        """Return the result of one call, however long it takes."""
        self.beat()
        future = self._submit(call)
        self._alone = {future}
        while not wait(self._alone, timeout=self._rhythm).done:
            self.beat()
        return future.result()

    def beat(self) -> None:
        """Let the heart beat if it is time to."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + self._rhythm
            self._heartbeat()

    def settle(self) -> None:
        """Drop calls not yet begun, tell those under way by `abandoned`, and see them end.

        A call that sends notices at its next block. One that waits for the store's
        answer does not: after `SETTLING` it is left to its own timeout.
        """
        self.abandoned.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        # A call that was dropped before it began never counts as done.
        begun = {call for call in self._pending | self._alone if not call.cancelled()}
        wait(begun, timeout=SETTLING.total_seconds())

    def _submit(self, call: Callable[[], R]) -> Future[R]:
        # Log lines of the calls carry the upload they belong to.
        return self._threads.submit(contextvars.copy_context().run, call)

    def _collect(self, *, timeout: float) -> list[T]:
        done, self._pending = wait(self._pending, timeout=timeout, return_when=FIRST_COMPLETED)
        return [future.result() for future in done]
