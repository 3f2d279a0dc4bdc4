"""A request that waits for a job to be settled."""

import asyncio
from datetime import timedelta

import pytest

from gateway.http.disconnect import on_disconnect
from gateway.job_watch import Snapshot
from gateway.jobs.queries import JobNotFound
from gateway.jobs.wait import until_settled
from schemas.lifecycle import JobStatus
from tests.unit.gateway.jobs.conftest import Jobs

pytestmark = pytest.mark.anyio

LONG = timedelta(seconds=30)
SHORT = timedelta(milliseconds=50)


async def wait(jobs: Jobs, job: Snapshot, *, wait_max: timedelta = LONG) -> JobStatus:
    with jobs.watch.waiting(job) as changes:
        async with asyncio.timeout(5):
            return (await until_settled(changes, job=job, wait_max=wait_max)).job.status


async def test_a_notification_ends_the_wait(jobs: Jobs) -> None:
    job = jobs.add()
    waiting = asyncio.create_task(wait(jobs, job))
    await jobs.compared()

    jobs.change(job, JobStatus.COMPLETED)

    assert await waiting == JobStatus.COMPLETED


async def test_a_change_that_does_not_settle_the_job_does_not_end_the_wait(jobs: Jobs) -> None:
    job = jobs.add(status=JobStatus.QUEUED)
    waiting = asyncio.create_task(wait(jobs, job))
    await jobs.compared()
    jobs.change(job)
    await jobs.until(lambda: jobs.reads)
    assert not waiting.done()

    jobs.change(job, JobStatus.FAILED)

    assert await waiting == JobStatus.FAILED


async def test_a_wait_that_runs_out_returns_the_newest_state(jobs: Jobs) -> None:
    job = jobs.add(status=JobStatus.QUEUED)
    waiting = asyncio.create_task(wait(jobs, job, wait_max=timedelta(milliseconds=300)))
    await jobs.compared()
    jobs.change(job)

    assert await waiting == JobStatus.PROCESSING


async def test_the_wait_ends_when_the_client_disconnects(jobs: Jobs) -> None:
    job = jobs.add()
    messages: asyncio.Queue[str] = asyncio.Queue()

    async def receive() -> dict[str, str]:
        return {"type": await messages.get()}

    with jobs.watch.waiting(job) as changes:
        async with on_disconnect(receive, changes.end), asyncio.timeout(5):  # type: ignore[arg-type]  # two types of message
            messages.put_nowait("http.request")
            messages.put_nowait("http.disconnect")
            await until_settled(changes, job=job, wait_max=LONG)


async def test_the_wait_ends_when_the_process_stops(jobs: Jobs) -> None:
    job = jobs.add()
    waiting = asyncio.create_task(wait(jobs, job))
    await jobs.compared()

    jobs.watch.drain()

    assert await waiting == JobStatus.PROCESSING


async def test_a_job_that_is_deleted_during_the_wait_is_not_found(jobs: Jobs) -> None:
    job = jobs.add()
    waiting = asyncio.create_task(wait(jobs, job))
    await jobs.compared()

    del jobs.rows[job.job.job_id]
    jobs.watch.notify(None)

    with pytest.raises(JobNotFound):
        await waiting
