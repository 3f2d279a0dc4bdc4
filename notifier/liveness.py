"""A file whose age shows a supervisor whether the process still works."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final, Never, TypeAlias

import structlog

log = structlog.stdlib.get_logger(__name__)

INTERVAL: Final = timedelta(seconds=5)

RECHECK_INTERVAL: Final = timedelta(milliseconds=200)
"""While the process does not work: whatever waits for its start gets the first touch early."""

STALE_AFTER: Final = timedelta(seconds=30)
"""A round of a loop takes a second, and a publish or a claim longer, but never this long."""

Alive: TypeAlias = Callable[[], Awaitable[bool]]


class Pulse:
    """The time at which a loop last started a round."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat: float | None = None

    def beat(self) -> None:
        self._beat = self._clock()

    @property
    def is_fresh(self) -> bool:
        return self._beat is not None and self._clock() - self._beat < STALE_AFTER.total_seconds()


async def keep(file: Path | None, *, alive: Alive) -> Never:
    """Touch the file while `alive` returns True.

    Only the file's age has a meaning. The file is never deleted, because a probe may read it at any
    moment.
    """
    was_alive = False
    while True:
        is_alive = await alive()
        if is_alive and file is not None:
            file.touch()  # noqa: ASYNC240  # one inode; a thread would cost more
        if was_alive and not is_alive:
            log.warning("liveness.withheld")
        was_alive = is_alive
        await asyncio.sleep((INTERVAL if is_alive else RECHECK_INTERVAL).total_seconds())
