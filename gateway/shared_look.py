"""One look at something slow, shared by everybody who asks."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

Found = TypeVar("Found")

KEPT: Final = timedelta(seconds=1)
"""Shorter than the interval of any probe, so that each probe of one prober is a look of its own."""


class SharedLook(Generic[Found]):
    """Runs at most one look at a time, and keeps what it found for a second.

    The look is a task of its own: no caller that ends or whose time is up ends the look.
    """

    def __init__(
        self,
        look: Callable[[], Coroutine[Any, Any, Found]],
        *,
        timeout: timedelta,
        monotonic: Callable[[], float],
        kept: timedelta = KEPT,
    ) -> None:
        """Create a look; it runs when somebody asks.

        Args:
            look: looks; must not raise.
            timeout: how long each caller waits. A look that takes longer goes on, for later callers.
            monotonic: the clock.
            kept: how long a finding answers later callers.
        """
        self._look = look
        self._timeout = timeout
        self._monotonic = monotonic
        self._kept = kept
        self._task: asyncio.Task[Found] | None = None
        self._until = 0.0

    async def ask(self) -> Found | None:
        """Return what the current or the last look found; None if it takes longer than the timeout."""
        # A local variable: while this caller waits, another may replace a look that is too old.
        task = self._task
        if task is None or (task.done() and self._monotonic() >= self._until):
            task = self._task = asyncio.create_task(self._run())
        # `wait` does not cancel the look when the time is up or the caller is cancelled.
        finished, _ = await asyncio.wait([task], timeout=self._timeout.total_seconds())
        return task.result() if finished else None

    async def close(self) -> None:
        """End a look that still runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> Found:
        try:
            return await self._look()
        finally:
            self._until = self._monotonic() + self._kept.total_seconds()
