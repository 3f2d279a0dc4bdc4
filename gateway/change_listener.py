"""Waking requests that wait for a job, without polling the database.

The database notifies a channel with the job's id at every change of its status. One
connection of the process listens for all waiting requests. A notification is a hint: a
waiting request reads the row then, and polls it too, because notifications are lost while
the connection is down.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import psycopg
import structlog
from psycopg import sql

log = structlog.stdlib.get_logger(__name__)

CHANNEL: Final = "waybill_jobs"

STREAM_READS_MAX: Final = 2
"""Connections to the database that all streams use together: one change wakes many of them."""

Connect: TypeAlias = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]
"""Opens a connection for listening, or raises `psycopg.OperationalError`."""

_RECONNECT_DELAY_MIN: Final = 0.5
_RECONNECT_DELAY_MAX: Final = 10.0


class JobChangeListener:
    """Wakes waiting requests when their job may have changed."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.is_draining = False
        self.stream_reads = asyncio.Semaphore(STREAM_READS_MAX)
        """Held by a stream while it reads its job."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen until the block ends; reconnect when the connection is lost."""
        listener = asyncio.create_task(self._listen(), name="job-change-listener")
        try:
            yield
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    @contextmanager
    def changes_of(self, job_id: object) -> Iterator[asyncio.Event]:
        """Set the event whenever the job may have changed.

        Read the job after entering the block: an earlier change does not set the event.
        """
        changed = asyncio.Event()
        waiting = self.waiting[str(job_id)]
        waiting.add(changed)
        try:
            yield changed
        finally:
            waiting.discard(changed)
            if not waiting:
                self.waiting.pop(str(job_id), None)

    def drain(self) -> None:
        """Wake every waiting request to answer now: the process is about to stop."""
        self.is_draining = True
        for job_id in list(self.waiting):
            self._wake(job_id)

    async def _listen(self) -> None:
        delay = _RECONNECT_DELAY_MIN
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    delay = _RECONNECT_DELAY_MIN
                    log.info("job_changes.listening")
                    async for notification in connection.notifies():
                        self._wake(notification.payload)
            except psycopg.Error as error:
                log.warning("job_changes.lost", error=type(error).__name__, retry_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _RECONNECT_DELAY_MAX)

    def _wake(self, job_id: str) -> None:
        for changed in self.waiting.get(job_id, ()):
            changed.set()
