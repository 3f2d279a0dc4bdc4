"""Gives the newest state of a job to every request that waits for it.

The database notifies a channel with the job's id at every change that clients see. All jobs that
changed are read in one query, and all requests that wait for a job share what was read. A
notification can be lost while its connection is down; therefore the revisions of all jobs that
requests wait for are compared after each connect and at a long interval.
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import Final, Never, TypeVar

import msgspec
import structlog

from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.lifecycle import SETTLED_JOBS
from schemas.runtime import postgres

log = structlog.stdlib.get_logger(__name__)

Found = TypeVar("Found")

CHANNEL: Final = "waybill_jobs"

COMPARE_INTERVAL: Final = timedelta(seconds=15)
"""Longest delay of a change whose notification was lost without an error."""

COLLECT_TIME: Final = timedelta(milliseconds=50)
"""New waits are compared together: a thousand requests that begin at once cost a few queries."""

COMPARED_AT_ONCE: Final = 1_000
READ_AT_ONCE: Final = 100
"""Jobs in one query. Their rows become answers in the event loop, which other requests need."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A job, and its revision: the number of its changes so far."""

    revision: int
    job: JobView

    @property
    def is_settled(self) -> bool:
        return self.job.status in SETTLED_JOBS

    @cached_property
    def encoded(self) -> bytes:
        """The job as JSON, encoded once for all requests."""
        return msgspec.json.encode(self.job)


class JobDeleted(Exception):
    """The job that a request waits for does not exist any more."""


class _Watched:
    """A job with the requests that wait for it."""

    __slots__ = ("is_deleted", "job_id", "newest", "waits")

    def __init__(self, newest: Snapshot) -> None:
        self.job_id = newest.job.job_id
        self.newest = newest
        self.is_deleted = False
        self.waits: set[JobWait] = set()

    def offer(self, snapshot: Snapshot) -> None:
        """Give a newer snapshot to all waits."""
        if snapshot.revision > self.newest.revision:
            self.newest = snapshot
            self.wake()

    def delete(self) -> None:
        self.is_deleted = True
        self.wake()

    def wake(self) -> None:
        for wait in self.waits:
            wait.wake()


class JobWait:
    """The wait of one request for the changes of a job; see `JobWatch.waiting`."""

    __slots__ = ("_is_ended", "_revision", "_watched", "_woken")

    def __init__(self, watched: _Watched, *, revision: int, is_ended: bool) -> None:
        self._watched = watched
        self._revision = revision
        self._is_ended = is_ended
        self._woken: asyncio.Future[None] | None = None

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    async def newer(self, *, within: timedelta) -> Snapshot | None:
        """Return the newest state once it is newer than the last one; skip states in between.

        Returns None if nothing has changed within the time, and as soon as the wait is ended.

        Raises:
            JobDeleted: the job was deleted.
        """
        if not self._has_news():
            loop = asyncio.get_running_loop()
            self._woken = loop.create_future()
            timer = loop.call_later(within.total_seconds(), self.wake)
            try:
                await self._woken
            finally:
                self._woken = None
                timer.cancel()
        if self._watched.is_deleted:
            raise JobDeleted
        newest = self._watched.newest
        if self._is_ended or newest.revision <= self._revision:
            return None
        self._revision = newest.revision
        return newest

    def end(self) -> None:
        """End the wait: the client has disconnected, or the process stops."""
        self._is_ended = True
        self.wake()

    def wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _has_news(self) -> bool:
        return (
            self._is_ended
            or self._watched.is_deleted
            or self._watched.newest.revision > self._revision
        )


class JobWatch:
    """Reads the jobs that requests wait for, when they change.

    A change is never missed: a wait is registered first, and then the revision of its job is
    compared with the one that the request has read. An earlier commit is found by this comparison,
    a later one is notified.

    Args:
        read: reads jobs by their ids; leaves out jobs that do not exist.
        read_revisions: reads their revisions likewise.
        compare_interval: see `COMPARE_INTERVAL`.
    """

    def __init__(
        self,
        *,
        read: Callable[[Collection[JobId]], Awaitable[Mapping[JobId, Snapshot]]],
        read_revisions: Callable[[Collection[JobId]], Awaitable[Mapping[JobId, int]]],
        compare_interval: timedelta = COMPARE_INTERVAL,
    ) -> None:
        self._read = read
        self._read_revisions = read_revisions
        self._compare_interval = compare_interval
        self._watched: dict[str, _Watched] = {}
        self._changed: set[str] = set()
        self._to_compare: set[str] = set()
        self._has_changed = asyncio.Event()
        self._has_to_compare = asyncio.Event()
        self._is_draining = False

    def __len__(self) -> int:
        """The number of jobs that requests wait for."""
        return len(self._watched)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read what changes, until the block ends."""
        tasks = [
            asyncio.create_task(self._read_changed(), name="job-watch-read"),
            asyncio.create_task(self._compare(), name="job-watch-compare"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @contextmanager
    def waiting(self, known: Snapshot) -> Iterator[JobWait]:
        """Register a request that waits for a job to become newer than `known`.

        The caller has read `known` as the job of its tenant. Nothing else is checked.
        """
        key = str(known.job.job_id)
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = _Watched(known)
        wait = JobWait(watched, revision=known.revision, is_ended=self._is_draining)
        watched.waits.add(wait)
        watched.offer(known)
        self._to_compare.add(key)
        self._has_to_compare.set()
        try:
            yield wait
        finally:
            watched.waits.discard(wait)
            if not watched.waits and self._watched.get(key) is watched:
                del self._watched[key]

    def notify(self, job_id: str | None) -> None:
        """Note that a job has changed, or that notifications may have been lost (None)."""
        if job_id is None:
            self._to_compare.update(self._watched)
            self._has_to_compare.set()
        elif job_id in self._watched:
            self._changed.add(job_id)
            self._has_changed.set()

    def drain(self) -> None:
        """End every wait, and those that begin later: the process is about to stop."""
        self._is_draining = True
        for watched in self._watched.values():
            for wait in watched.waits:
                wait.end()

    async def _read_changed(self) -> Never:
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            for batch in self._taken(self._changed, at_once=READ_AT_ONCE):
                found = await self._look(self._read, batch)
                if found is None:
                    continue
                for watched in batch:
                    if watched.job_id in found:
                        watched.offer(found[watched.job_id])
                    else:
                        watched.delete()

    async def _compare(self) -> Never:
        loop = asyncio.get_running_loop()
        interval = self._compare_interval.total_seconds()
        all_at = loop.time() + interval
        while True:
            try:
                async with asyncio.timeout_at(all_at):
                    await self._has_to_compare.wait()
                    await asyncio.sleep(COLLECT_TIME.total_seconds())
            except TimeoutError:
                self._to_compare.update(self._watched)
                all_at = loop.time() + interval
            self._has_to_compare.clear()
            for batch in self._taken(self._to_compare, at_once=COMPARED_AT_ONCE):
                found = await self._look(self._read_revisions, batch)
                if found is None:
                    continue
                for watched in batch:
                    if found.get(watched.job_id) != watched.newest.revision:
                        self.notify(str(watched.job_id))

    async def _look(
        self,
        read: Callable[[Collection[JobId]], Awaitable[Mapping[JobId, Found]]],
        batch: Collection[_Watched],
    ) -> Mapping[JobId, Found] | None:
        """Read a batch once the database answers; None after an unexpected error."""
        wanted = [watched.job_id for watched in batch]
        try:
            return await postgres.through_outages(
                partial(read, wanted), doing="reading changed jobs"
            )
        except Exception:
            # An error that ended this task would end every wait of the process. The next comparison
            # finds what this look has missed.
            log.exception("job.look_failed", jobs=len(wanted))
            return None

    def _taken(self, marked: set[str], *, at_once: int) -> Iterable[Sequence[_Watched]]:
        """Empty a set; return the jobs in it that requests wait for, in batches."""
        taken = [self._watched[key] for key in marked if key in self._watched]
        marked.clear()
        return [taken[start : start + at_once] for start in range(0, len(taken), at_once)]
