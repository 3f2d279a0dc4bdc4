"""Threads for what blocks: disks, digests, and the object store's client."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

# Hashing and writing release the interpreter lock; more threads than disks or cores only queue.
THREADS: Final = 16

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
        call = asyncio.wrap_future(self._pool.submit(function, *arguments, **named))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            while not call.done():
                # One cancellation is passed on, at the end; another does not shorten the wait.
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([call])
            raise

    def close(self) -> None:
        self._pool.shutdown()
