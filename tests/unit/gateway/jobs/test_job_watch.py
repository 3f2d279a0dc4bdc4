"""One look per change, shared by all requests that wait for the job."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from gateway.job_watch import JobDeleted, JobWait, Snapshot
from schemas.lifecycle import JobStatus
from tests.unit.gateway.jobs.conftest import Jobs

pytestmark = pytest.mark.anyio

LONG = timedelta(seconds=30)
SHORT = timedelta(milliseconds=50)


async def newer(wait: JobWait) -> Snapshot | None:
    async with asyncio.timeout(5):
        return await wait.newer(within=LONG)


async def test_all_waits_of_a_job_share_one_read_of_a_change(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as first, jobs.watch.waiting(job) as second:
        changed = jobs.change(job)

        assert [await newer(first), await newer(second)] == [changed, changed]

    assert jobs.reads == [{job.job.job_id}]


async def test_jobs_that_change_together_are_read_in_one_query(jobs: Jobs) -> None:
    one, two = jobs.add(), jobs.add()
    with jobs.watch.waiting(one) as first, jobs.watch.waiting(two) as second:
        jobs.change(one)
        jobs.change(two)
        await newer(first)
        await newer(second)

    assert jobs.reads == [{one.job.job_id, two.job.job_id}]


async def test_a_change_during_a_read_is_read_again(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as wait:
        jobs.may_read.clear()
        jobs.change(job)
        await jobs.until(lambda: jobs.reads)
        newest = jobs.change(job)
        jobs.may_read.set()

        while await newer(wait) != newest:
            pass

    assert len(jobs.reads) == 2


async def test_a_change_before_the_wait_began_is_found(jobs: Jobs) -> None:
    job = jobs.add()
    changed = jobs.change(job)

    with jobs.watch.waiting(job) as wait:
        assert await newer(wait) == changed


async def test_a_wait_that_begins_gives_its_newer_state_to_the_others(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as first:
        await jobs.compared()
        changed = jobs.commit(job)
        with jobs.watch.waiting(changed):
            assert await newer(first) == changed

    assert jobs.reads == []


async def test_a_notification_of_another_job_causes_no_query(jobs: Jobs) -> None:
    job, other = jobs.add(), jobs.add()
    with jobs.watch.waiting(job) as wait:
        await jobs.compared()
        jobs.change(other)

        assert await wait.newer(within=SHORT) is None

    assert (len(jobs.reads), len(jobs.comparisons)) == (0, 1)


async def test_a_wait_costs_no_query_while_nothing_changes(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as wait:
        await jobs.compared()
        for _ in range(5):
            assert await wait.newer(within=SHORT) is None

    assert (len(jobs.reads), len(jobs.comparisons)) == (0, 1)


async def test_waits_that_begin_together_are_compared_in_one_query(jobs: Jobs) -> None:
    made = [jobs.add() for _ in range(3)]
    with (
        jobs.watch.waiting(made[0]),
        jobs.watch.waiting(made[1]),
        jobs.watch.waiting(made[2]),
    ):
        await jobs.compared()

    assert jobs.comparisons == [{job.job.job_id for job in made}]


async def test_a_change_whose_notification_was_lost_is_found_after_the_reconnect(
    jobs: Jobs,
) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as wait:
        await jobs.compared()
        changed = jobs.commit(job)
        jobs.watch.notify(None)

        assert await newer(wait) == changed


async def test_a_change_without_any_notification_is_found_by_the_next_comparison() -> None:
    jobs = Jobs(compare_interval=timedelta(milliseconds=200))
    job, other = jobs.add(), jobs.add()
    async with jobs.watch.running():
        with jobs.watch.waiting(job) as wait:
            await jobs.compared()
            changed = jobs.commit(job)
            # Waits that begin all the time do not put the comparison off.
            for _ in range(20):
                with jobs.watch.waiting(other):
                    await asyncio.sleep(0.02)

            async with asyncio.timeout(0.1):
                assert await newer(wait) == changed


async def test_a_wait_for_a_deleted_job_ends(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as wait:
        await jobs.compared()
        del jobs.rows[job.job.job_id]
        jobs.watch.notify(None)

        with pytest.raises(JobDeleted):
            await newer(wait)


async def test_a_wait_survives_an_outage_of_the_database(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as wait:
        await jobs.compared()
        jobs.error = OperationalError("", None, Exception())
        changed = jobs.change(job)
        await jobs.until(lambda: jobs.failures)
        jobs.error = None

        assert await newer(wait) == changed


async def test_an_unexpected_error_of_a_look_ends_no_wait(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as wait:
        await jobs.compared()
        jobs.error = RuntimeError("a fault")
        jobs.change(job)
        jobs.watch.notify(None)
        await jobs.until(lambda: jobs.failures == 2)
        jobs.error = None
        jobs.watch.notify(None)

        assert await newer(wait) == jobs.rows[job.job.job_id]


async def test_waits_end_when_the_process_stops_also_those_that_begin_later(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as wait:
        jobs.watch.drain()

        assert (await newer(wait), wait.is_ended) == (None, True)
    with jobs.watch.waiting(job) as later:
        assert (await newer(later), later.is_ended) == (None, True)


async def test_a_finished_wait_leaves_nothing_behind(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as wait, jobs.watch.waiting(job):
        assert await wait.newer(within=SHORT) is None
        assert len(jobs.watch) == 1

    assert len(jobs.watch) == 0


async def test_a_state_is_encoded_once_for_all_waits(jobs: Jobs) -> None:
    job = jobs.add()
    with jobs.watch.waiting(job) as first, jobs.watch.waiting(job) as second:
        jobs.change(job, JobStatus.COMPLETED)
        one, two = await newer(first), await newer(second)

    assert one is not None
    assert two is not None
    assert one.encoded is two.encoded
