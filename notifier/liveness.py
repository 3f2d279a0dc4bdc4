"""A file whose age tells a supervisor whether the process still does its work."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Never, TypeAlias

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable

log = structlog.stdlib.get_logger(__name__)

INTERVAL: Final = timedelta(seconds=5)

RECHECK: Final = timedelta(milliseconds=200)
"""Until it is alive: who waits for the file's first touch should not wait for the interval too."""

STALE: Final = timedelta(seconds=30)
"""A loop turns every second; one round may take a publish or a claim longer, not this long."""


Alive: TypeAlias = "Callable[[], Awaitable[bool]]"


class Pulse:
    """When a loop last came round."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat: float | None = None

    def beat(self) -> None:
        self._beat = self._clock()

    @property
    def is_fresh(self) -> bool:
        return self._beat is not None and self._clock() - self._beat < STALE.total_seconds()


async def keep(file: Path | None, *, alive: Alive) -> Never:
    """Touch the file for as long as `alive` says so.

    Only the file's age is the message: it is never deleted, so that a probe
    and this loop cannot race.
    """
    was_alive = False
    while True:
        is_alive = await alive()
        if is_alive and file is not None:
            file.touch()  # noqa: ASYNC240  # one inode; a thread would cost more
        if was_alive and not is_alive:
            log.warning("liveness.withheld")
        was_alive = is_alive
        await asyncio.sleep((INTERVAL if is_alive else RECHECK).total_seconds())
