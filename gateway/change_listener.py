"""Waking requests that wait for a job, without asking the database all the time.

The database notifies a channel with the job's id at every change of its
status; one connection of this process listens for all waiting requests. A
notification is a hint: who waits looks at the row, and looks every second in
any case, because one may be lost while the connection is.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Final, TypeAlias

import psycopg
import structlog
from psycopg import sql

log = structlog.stdlib.get_logger(__name__)

CHANNEL: Final = "waybill_jobs"
LOOK_ANYWAY: Final = timedelta(seconds=1)

LOOKS_AT_ONCE: Final = 2
"""Most connections to the database that all streams take together: one change wakes many of them."""

Connect: TypeAlias = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]
"""Opens a connection for listening, or raises `psycopg.OperationalError`."""

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


class JobChangeListener:
    """Tells those who wait that a job may have changed."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.is_draining = False
        self.looking = asyncio.Semaphore(LOOKS_AT_ONCE)
        """Held by a stream while it looks at its job."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen until the block ends; a lost connection is opened again."""
        listener = asyncio.create_task(self._listen_on_and_on(), name="job-watch")
        try:
            yield
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    @contextmanager
    def changes_of(self, job_id: object) -> Iterator[asyncio.Event]:
        """Set the event whenever the job may have changed.

        Look at the job after entering: a change before it would go unseen.
        """
        changed = asyncio.Event()
        waiting = self._waiting[str(job_id)]
        waiting.add(changed)
        try:
            yield changed
        finally:
            waiting.discard(changed)
            if not waiting:
                self._waiting.pop(str(job_id), None)

    def is_awaited(self, job_id: object) -> bool:
        return str(job_id) in self._waiting

    def drain(self) -> None:
        """Let everybody go with what there is: the process is about to stop."""
        self.is_draining = True

    async def _listen_on_and_on(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    pause = _FIRST_PAUSE
                    log.info("job_watch.listening")
                    async for notification in connection.notifies():
                        self._tell(notification.payload)
            except psycopg.Error as error:
                log.warning("job_watch.lost", error=type(error).__name__, retry_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _tell(self, job_id: str) -> None:
        for changed in self._waiting.get(job_id, ()):
            changed.set()
