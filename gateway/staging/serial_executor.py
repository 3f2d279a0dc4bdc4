"""Threads for what blocks: disks, digests, and the object store's client."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, Final, ParamSpec, TypeVar

# Hashing and writing release the interpreter lock; more threads than disks or cores only queue.
THREADS: Final = 16

# So many blocks of one body, then another request has a turn.
CALLS_IN_A_ROW: Final = 8

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Threads:
    def __init__(self, name: str, *, count: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(
        self,
        function: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """Run a blocking call in one of the threads, to its end however often the caller is cancelled.

        A cancelled caller would go on to close the file while the thread still
        writes, and the thread would then write to whatever got the same number.
        """
        return await _outcome_of(
            asyncio.wrap_future(self._pool.submit(function, *arguments, **named))
        )

    def start(self, function: Callable[[], None]) -> None:
        """Have a call that does not fail run in one of the threads, and see to other things."""
        self._pool.submit(function)

    def close(self) -> None:
        self._pool.shutdown()


class Lane:
    """Blocking calls that follow each other, each begun as soon as the one before has ended.

    Were every call only asked for once the one before had told the event loop of
    its end, the thread would stand idle in between: for a third of the time where
    a body comes in as fast as it is dealt with. After a call that failed none is
    begun: it would go on from where nobody has got.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_busy = False
        self._failure: BaseException | None = None
        self._lock = Lock()

    async def run(
        self,
        function: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """Run a call after all those asked for before it, to its end however often the caller is cancelled.

        Raises:
            BaseException: what this call raised, or one before it.
        """
        return await _outcome_of(self.ask(function, *arguments, **named))

    def ask(
        self,
        function: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> asyncio.Future[Result]:
        """Put a call in line, and return what tells of its end; see `until_done`.

        Raises:
            RuntimeError: the threads have been closed.
        """
        return self._in_line(partial(function, *arguments, **named), even_after_failure=False)

    def end(self, function: Callable[[], None]) -> asyncio.Future[None]:
        """Put a last call in line that does not fail, to be run whatever becomes of the others.

        Raises:
            RuntimeError: the threads have been closed.
        """
        return self._in_line(function, even_after_failure=True)

    def _in_line(
        self, function: Callable[[], Result], *, even_after_failure: bool
    ) -> asyncio.Future[Result]:
        ended = Future[Result]()

        def call() -> None:
            if not ended.set_running_or_notify_cancel():
                self._failure = CancelledError()
                return
            if self._failure is not None and not even_after_failure:
                ended.set_exception(self._failure)
                return
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                self._failure = error
                ended.set_exception(error)
            else:
                ended.set_result(result)

        with self._lock:
            if not self._is_busy:
                # First: a pool that takes nothing more must not leave a call in line for ever.
                self._threads.start(self._work)
                self._is_busy = True
            self._waiting.append(call)
        return asyncio.wrap_future(ended)

    def _work(self) -> None:
        while not self._has_emptied_line():
            try:
                # To the end of the queue: other requests have their calls waiting too.
                self._threads.start(self._work)
            except RuntimeError:
                # The pool is closing and takes nothing more; these calls are waited for.
                continue
            return

    def _has_emptied_line(self) -> bool:
        """Run some calls, and say whether there are no more."""
        for _ in range(CALLS_IN_A_ROW):
            with self._lock:
                if not self._waiting:
                    self._is_busy = False
                    return True
                call = self._waiting.popleft()
            call()
        return False


async def until_done(calls: Collection[asyncio.Future[Any]]) -> None:
    """Wait for calls to end, however often the caller is cancelled; that is passed on at the end.

    A thread cannot be stopped. Who went on while one is at work would close the
    file it writes to, or fill the buffer it writes from.
    """
    cancelled: asyncio.CancelledError | None = None
    while pending := [call for call in calls if not call.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _outcome_of(call: asyncio.Future[Result]) -> Result:
    await until_done([call])
    return call.result()
