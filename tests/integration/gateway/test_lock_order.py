"""Concurrent requests lock the same rows in one order, so that they never deadlock."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update

from gateway.uploads.finalize import add_job
from schemas.ids import JobId
from schemas.lifecycle import JobStatus
from schemas.tables.jobs import Job
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve

pytestmark = pytest.mark.anyio

KEY = {"Idempotency-Key": "one-for-all"}

WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock' AND query LIKE :statement"
)


async def until_waiting(transaction: BeginSession, *, statement: str = "%", count: int = 1) -> None:
    """Return once `count` such statements wait for a lock."""
    async with asyncio.timeout(20):
        while True:
            async with transaction() as session:
                if await session.scalar(WAITING, {"statement": statement}) == count:
                    return
            await asyncio.sleep(0.01)


async def test_a_cancel_waits_for_the_worker_if_a_concurrent_finalize_commits_first(
    api: Api, transaction: BeginSession
) -> None:
    upload_id = UUID(await api.sent(b"content"))
    async with transaction() as working:
        async with transaction() as gate:
            await gate.execute(select(Upload.id).with_for_update(read=True, key_share=True))
            cancelling = asyncio.create_task(api.ask("DELETE", f"/uploads/{upload_id}"))
            await until_waiting(transaction)
            async with transaction() as finalizing:
                add_job(
                    finalizing,
                    await finalizing.get_one(Upload, upload_id),
                    job_id=JobId(uuid4()),
                    traceparent=None,
                    now=datetime.now(UTC),
                )
            # A worker claims the job before the cancel locks the upload.
            await working.execute(update(Job).values(status=JobStatus.PROCESSING))
        await until_waiting(transaction, statement="UPDATE jobs%")

        async with asyncio.timeout(20):
            await working.execute(update(Upload).values(sniffed_type="text/plain"))

    answer = await cancelling
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    async with transaction() as session:
        assert await session.scalar(select(Job.status)) == JobStatus.CANCELLED


async def test_a_concurrent_create_and_finalize_with_one_key_succeed_once(
    api: Api, serve: Serve, transaction: BeginSession
) -> None:
    upload_id = await api.sent(b"content")
    # Two gateways: within one, the tenant lock would serialise the requests.
    async with serve() as other:
        async with transaction() as gate:
            await gate.execute(select(TenantUsage).with_for_update())
            finalizing = asyncio.create_task(api.finalize(upload_id, headers=KEY))
            await until_waiting(transaction, count=1)
            creating = asyncio.create_task(other.create(size=5, headers=KEY))
            await until_waiting(transaction, count=2)
        await asyncio.wait([finalizing, creating])

    assert (await finalizing).status_code == 202
    assert problem(await creating) == (422, "idempotency_key_reused")
    async with transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Upload)) == 1


async def test_a_burst_of_one_tenant_leaves_connections_for_others(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    upload_id = await api.sent(b"content")
    async with transaction() as gate:
        await gate.execute(select(TenantUsage).with_for_update())
        # More requests than connections, and each needs the locked row.
        burst = [asyncio.create_task(api.create(size=5)) for _ in range(30)]
        burst.append(asyncio.create_task(api.finalize(upload_id)))
        await until_waiting(transaction)

        async with asyncio.timeout(5):
            assert (await api.ask("GET", f"/uploads/{upload_id}")).status_code == 200
            assert (await stranger.ask("GET", f"/uploads/{upload_id}")).status_code == 404

    answers = await asyncio.gather(*burst)
    assert [answer.status_code for answer in answers] == [201] * 30 + [202]
