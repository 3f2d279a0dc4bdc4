"""Concurrent requests lock the same rows in one order, so that they never deadlock."""

import asyncio
import itertools
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from schemas import object_keys
from schemas.ids import TenantId
from schemas.settings import StepSettings
from schemas.tables.steps import Step, TenantSteps
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Upload
from schemas.tables.webhooks import Webhook
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.endpoints import registered

pytestmark = pytest.mark.anyio

KEY = {"Idempotency-Key": "one-for-all"}
ROUNDS = 60

WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock' AND query LIKE :statement"
)


async def until_waiting(transaction: BeginSession, *, statement: str = "%", count: int = 1) -> None:
    """Return once at least `count` such statements wait for a lock."""
    async with asyncio.timeout(20):
        while True:
            async with transaction() as session:
                if await session.scalar(WAITING, {"statement": statement}) >= count:
                    return
            await asyncio.sleep(0.01)


async def test_a_cancel_waits_for_a_worker_that_has_locked_the_upload(
    api: Api, transaction: BeginSession
) -> None:
    upload_id, job_id = await api.finalized()
    async with transaction() as working:
        await working.execute(update(Upload).values(sniffed_type="text/plain"))
        cancelling = asyncio.create_task(api.ask("DELETE", f"/uploads/{upload_id}"))
        await until_waiting(transaction)

        async with asyncio.timeout(20):
            await workers.fail(working, job_id, code="staging_corrupt")

    assert problem(await cancelling) == (409, "upload_already_settled")


async def test_a_cancel_waits_for_a_worker_that_records_its_progress(
    api: Api, transaction: BeginSession
) -> None:
    upload_id, job_id = await api.finalized()
    async with transaction() as working:
        await working.execute(select(Step.job_id).with_for_update())
        cancelling = asyncio.create_task(api.ask("DELETE", f"/uploads/{upload_id}"))
        await until_waiting(transaction)

        async with asyncio.timeout(20):
            await workers.advance(working, job_id, done=1)

    assert (await cancelling).json()["status"] == "cancelled"
    job = (await api.get(f"/jobs/{job_id}")).json()
    assert (job["status"], job["bytes_done"]) == ("cancelled", 1)


async def test_finalizes_and_workers_of_one_tenant_never_deadlock(
    serve: Serve, transaction: BeginSession
) -> None:
    """Every transaction of the tenant locks the same counters, of both priorities."""
    shares = StepSettings(tenant_steps_max=1, tenant_bulk_steps_max=1)
    settings: dict[str, Any] = {"tenant_steps_max": 1, "tenant_bulk_steps_max": 1}
    # Two gateways: within one, the tenant lock would serialise the requests.
    async with serve(**settings) as one, serve(**settings) as other:
        uploads = [await one.sent(b"content") for _ in range(ROUNDS)]

        async def finalize(number: int, upload_id: str) -> str:
            gateway = (one, other)[number % 2]
            priority = ("interactive", "bulk")[number // 2 % 2]
            answer = await gateway.finalize(upload_id, priority=priority)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["job_id"])

        async def finalize_and_end(number: int, upload_id: str) -> None:
            job_id = await finalize(number, upload_id)
            if number % 3 == 0:
                answer = await one.ask("DELETE", f"/uploads/{upload_id}")
                assert answer.status_code == 200, answer.text
                return
            async with transaction() as session:
                if number % 3 == 1:
                    await workers.fail(session, job_id, code="staging_corrupt", settings=shares)
                else:
                    await workers.store(session, job_id, will_be_read=True, settings=shares)

        await asyncio.gather(*itertools.starmap(finalize_and_end, enumerate(uploads)))

        await asyncio.gather(
            *[
                one.ask("DELETE", f"/uploads/{upload_id}", params={"purge": "true"})
                for upload_id in uploads
            ]
        )
    async with transaction() as session:
        left = (
            await session.execute(
                select(TenantSteps.name, TenantSteps.priority, TenantSteps.waiting).where(
                    TenantSteps.waiting > 0, TenantSteps.in_broker == 0
                )
            )
        ).all()
    assert left == [], "steps that nothing will release wait"


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


async def test_a_burst_of_references_leaves_connections_for_others(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    upload_id, _ = await api.finalized()
    async with transaction() as gate:
        owner = (await gate.execute(select(TenantSteps.tenant_id).with_for_update())).scalar_one()
        reference = {"object_key": f"{object_keys.incoming(TenantId(owner))}a"}
        burst = [asyncio.create_task(api.ask("POST", "/jobs", json=reference)) for _ in range(30)]
        await until_waiting(transaction)

        async with asyncio.timeout(5):
            assert (await api.ask("GET", f"/uploads/{upload_id}")).status_code == 200
            assert (await stranger.ask("GET", f"/uploads/{upload_id}")).status_code == 404

    answers = await asyncio.gather(*burst)
    assert [answer.status_code for answer in answers] == [202] * 30


async def test_a_concurrent_rotation_and_ping_with_one_key_succeed_once(
    api: Api, serve: Serve, transaction: BeginSession
) -> None:
    webhook_id = await registered(api)
    async with serve() as other:
        async with transaction() as gate:
            await gate.execute(select(Webhook).with_for_update())
            rotating = asyncio.create_task(
                api.ask("POST", f"/webhooks/{webhook_id}/rotate-secret", json={}, headers=KEY)
            )
            await until_waiting(transaction, count=1)
            pinging = asyncio.create_task(
                other.ask("POST", f"/webhooks/{webhook_id}/ping", headers=KEY)
            )
            await until_waiting(transaction, count=2)
        await asyncio.wait([rotating, pinging])

    assert (await rotating).status_code == 201
    assert problem(await pinging) == (422, "idempotency_key_reused")
