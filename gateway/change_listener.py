"""Wakes requests that wait for a job.

The database notifies a channel with the job's id at every change of its status. One
connection of the process listens for all waiting requests. A notification is a hint, after which a
waiting request reads the row. The request also polls the row, because notifications are lost while
the connection is down.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from schemas.runtime import postgres

CHANNEL: Final = "waybill_jobs"

STREAM_READS_MAX: Final = 2
"""Database connections that all streams share: one change can wake many streams."""


class JobChangeListener:
    """Wakes waiting requests when their job may have changed."""

    def __init__(self, connect: postgres.Connect) -> None:
        self._connect = connect
        self.waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.is_draining = False
        self.is_listening = False
        self.stream_reads = asyncio.Semaphore(STREAM_READS_MAX)
        """Held by a stream while it reads its job."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen until the block ends; reconnect when the connection is lost."""
        listener = asyncio.create_task(
            postgres.listen(
                self._connect, channel=CHANNEL, notify=self._notify, lost=self._set_lost
            ),
            name="job-change-listener",
        )
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
        self._wake(None)

    def _notify(self, job_id: str | None) -> None:
        self.is_listening = True
        self._wake(job_id)

    def _set_lost(self) -> None:
        self.is_listening = False

    def _wake(self, job_id: str | None) -> None:
        """Wake the requests that wait for one job, or for any job."""
        woken = self.waiting.values() if job_id is None else [self.waiting.get(job_id, set())]
        for changed in itertools.chain.from_iterable(woken):
            changed.set()
