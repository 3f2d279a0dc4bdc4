"""Jobs in a fake database, which a watch reads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import timedelta
from uuid import uuid4

import pytest

from gateway.job_watch import JobWatch, Snapshot
from schemas.ids import JobId
from schemas.lifecycle import JobStatus
from tests.factories.jobs import a_job


class Jobs:
    """Jobs in a database that counts the queries, and can fail."""

    def __init__(self, *, compare_interval: timedelta = timedelta(minutes=1)) -> None:
        self.rows: dict[JobId, Snapshot] = {}
        self.reads: list[set[JobId]] = []
        self.comparisons: list[set[JobId]] = []
        self.error: Exception | None = None
        self.failures = 0
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._has_queried = asyncio.Event()
        self.watch = JobWatch(
            read=self._read,
            read_revisions=self._read_revisions,
            compare_interval=compare_interval,
        )

    def add(self, *, revision: int = 1, status: JobStatus = JobStatus.PROCESSING) -> Snapshot:
        job_id = JobId(uuid4())
        self.rows[job_id] = Snapshot(revision=revision, job=a_job(job_id, status))
        return self.rows[job_id]

    def commit(self, job: Snapshot, status: JobStatus = JobStatus.PROCESSING) -> Snapshot:
        """Change a job, without a notification."""
        job_id = job.job.job_id
        revision = self.rows[job_id].revision + 1
        self.rows[job_id] = Snapshot(revision=revision, job=a_job(job_id, status))
        return self.rows[job_id]

    def change(self, job: Snapshot, status: JobStatus = JobStatus.PROCESSING) -> Snapshot:
        """Change a job, with a notification."""
        changed = self.commit(job, status)
        self.watch.notify(str(job.job.job_id))
        return changed

    async def until(self, is_reached: Callable[[], object]) -> None:
        """Wait until the queries so far meet a condition."""
        async with asyncio.timeout(5):
            while not is_reached():
                self._has_queried.clear()
                await self._has_queried.wait()

    async def compared(self) -> None:
        """Wait until the revisions of new waits have been compared."""
        await self.until(lambda: self.comparisons)

    async def _read(self, job_ids: Collection[JobId]) -> Mapping[JobId, Snapshot]:
        found = self._found(job_ids)
        self.reads.append(set(job_ids))
        await self.may_read.wait()
        return found

    async def _read_revisions(self, job_ids: Collection[JobId]) -> Mapping[JobId, int]:
        found = self._found(job_ids)
        self.comparisons.append(set(job_ids))
        return {job_id: snapshot.revision for job_id, snapshot in found.items()}

    def _found(self, job_ids: Collection[JobId]) -> Mapping[JobId, Snapshot]:
        self._has_queried.set()
        if self.error is not None:
            self.failures += 1
            raise self.error
        return {job_id: self.rows[job_id] for job_id in job_ids if job_id in self.rows}


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    """A database whose jobs are watched."""
    jobs = Jobs()
    async with jobs.watch.running():
        yield jobs
