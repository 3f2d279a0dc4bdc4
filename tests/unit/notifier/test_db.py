import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from notifier import db
from schemas.runtime import postgres

pytestmark = pytest.mark.anyio


async def test_uninterrupted_work_ends_before_its_cancellation_is_raised() -> None:
    started, may_end = asyncio.Event(), asyncio.Event()
    has_ended = False

    async def work() -> None:
        nonlocal has_ended
        started.set()
        await may_end.wait()
        has_ended = True

    task = asyncio.create_task(db.uninterrupted(work()))
    await started.wait()
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert has_ended


async def test_an_error_of_uninterrupted_work_does_not_replace_its_cancellation() -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        await may_end.wait()
        raise OperationalError("select", {}, Exception("the server is gone"))

    async def repeat() -> None:
        await postgres.through_outages(lambda: db.uninterrupted(work()), doing="testing")

    task = asyncio.create_task(repeat())
    await started.wait()
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_wake_up_called_before_the_wait_is_not_lost() -> None:
    wake = db.WakeUp()
    wake.call()
    async with asyncio.timeout(1):
        await wake.wait(at_most=timedelta(hours=1))


async def test_a_wake_up_ends_one_wait() -> None:
    wake = db.WakeUp()
    wake.call()
    await wake.wait(at_most=timedelta(hours=1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wake.wait(at_most=timedelta(hours=1))


async def test_a_wait_without_a_wake_up_ends_at_its_limit() -> None:
    async with asyncio.timeout(1):
        await db.WakeUp().wait(at_most=timedelta(milliseconds=1))
