"""Threads for calls that block: disks, digests, and the object store's client."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, Final, TypeVar, TypeVarTuple

# Hashing and writing release the interpreter lock; more threads than disks or cores only queue.
THREADS: Final = 16

# After so many calls in a row, an executor lets the calls of other executors run.
CALLS_IN_A_ROW: Final = 8

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Threads:
    def __init__(self, name: str, *, count: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run a blocking call in a thread, to its end even if the caller is cancelled.

        A caller that returned early would close the file while the thread still
        writes, and the thread would then write to the next file with the same descriptor.
        """
        return await _result_of(asyncio.wrap_future(self._pool.submit(function, *arguments)))

    def start(self, function: Callable[[], None]) -> None:
        """Run a call in a thread, without waiting for it; the call must not raise."""
        self._pool.submit(function)

    def close(self) -> None:
        self._pool.shutdown()


class SerialExecutor:
    """Runs blocking calls one after another, without a gap between them.

    If the event loop submitted each call after the result of the previous call, the thread would
    idle in between: for a third of the time if a body arrives as fast as it is processed. After a
    failed call no later call runs, because the state that it needs was never reached.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._queue: deque[Callable[[], None]] = deque()
        self._is_busy = False
        self._failure: BaseException | None = None
        self._lock = Lock()

    async def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run a call after all earlier calls, to its end even if the caller is cancelled.

        Raises:
            BaseException: what this call or an earlier call raised.
        """
        return await _result_of(self.submit(function, *arguments))

    def submit(
        self,
        function: Callable[[*Arguments], Result],
        *arguments: *Arguments,
        even_after_failure: bool = False,
    ) -> asyncio.Future[Result]:
        """Queue a call and return its future; wait for the future with `until_done`.

        Args:
            function: the call.
            arguments: the arguments of the call.
            even_after_failure: run the call even if an earlier call failed.

        Raises:
            RuntimeError: the threads are closed.
        """
        done = Future[Result]()

        def call() -> None:
            if not done.set_running_or_notify_cancel():
                self._failure = CancelledError()
                return
            if self._failure is not None and not even_after_failure:
                done.set_exception(self._failure)
                return
            try:
                result = function(*arguments)
            except BaseException as error:  # noqa: BLE001  # raised where the future is awaited
                self._failure = error
                done.set_exception(error)
            else:
                done.set_result(result)

        with self._lock:
            if not self._is_busy:
                # Before the call is queued: a closed pool raises here, and a call that was queued
                # before would never run.
                self._threads.start(self._work)
                self._is_busy = True
            self._queue.append(call)
        return asyncio.wrap_future(done)

    def _work(self) -> None:
        while self._run_some_calls():
            try:
                # At the end of the pool's queue, because calls of other requests wait too.
                self._threads.start(self._work)
            except RuntimeError:
                # The pool is closing and accepts no more work; the queued calls still run here.
                continue
            return

    def _run_some_calls(self) -> bool:
        """Run the next calls, up to `CALLS_IN_A_ROW`; False once the queue is empty."""
        for _ in range(CALLS_IN_A_ROW):
            with self._lock:
                if not self._queue:
                    self._is_busy = False
                    return False
                call = self._queue.popleft()
            call()
        return True


async def until_done(calls: Collection[asyncio.Future[Any]]) -> None:
    """Wait until all calls have ended, even if the caller is cancelled; only then raise that.

    A thread cannot be stopped. A caller that did not wait could close a file, or refill a
    buffer, that a thread still uses.
    """
    cancelled: asyncio.CancelledError | None = None
    while pending := [call for call in calls if not call.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _result_of(call: asyncio.Future[Result]) -> Result:
    await until_done([call])
    return call.result()
