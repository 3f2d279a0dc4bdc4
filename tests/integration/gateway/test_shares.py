"""A tenant's steps are given to the broker only while few of them are there; the others wait."""

import asyncio
from itertools import cycle
from typing import Any

import pytest
from sqlalchemy import select

from schemas import object_keys, queues
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.tenants import Tenant
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api, BeginSession
from tests.integration.gateway.conftest import MakeKey, Serve

pytestmark = pytest.mark.anyio


async def submit(api: Api, count: int, **options: Any) -> list[str]:  # noqa: ANN401  # any field of the API
    """Finalize uploads one after the other; return their jobs."""
    jobs = []
    for _ in range(count):
        answer = await api.finalize(await api.sent(b"content"), **options)
        assert answer.status_code == 202, answer.text
        jobs.append(answer.json()["job_id"])
    return jobs


async def cancel(api: Api, job_id: str) -> None:
    upload_id = (await api.get(f"/jobs/{job_id}")).json()["upload_id"]
    assert (await api.ask("DELETE", f"/uploads/{upload_id}")).status_code == 200


async def transfer_of(api: Api, job_id: str) -> tuple[str, int | None]:
    """Return the status of a job's transfer, and its place in line."""
    step = (await api.get(f"/jobs/{job_id}")).json()["steps"][0]
    return step["status"], step["place"]


async def transfers_of(api: Api, jobs: list[str]) -> list[tuple[str, int | None]]:
    return [await transfer_of(api, job_id) for job_id in jobs]


async def released(transaction: BeginSession) -> list[str]:
    """Return the jobs whose transfers are in the outbox, in the order of their release."""
    async with transaction() as session:
        jobs = await session.scalars(
            select(Step.job_id)
            .join(OutboxMessage, OutboxMessage.event_id == Step.event_id)
            .where(Step.name == StepName.TRANSFER, OutboxMessage.queue == queues.UPLOADS)
            .order_by(OutboxMessage.id)
        )
        return [str(job_id) for job_id in jobs]


async def test_steps_beyond_the_share_of_a_tenant_wait_in_line(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(tenant_steps_max=2) as api:
        jobs = await submit(api, 5)

        assert await released(transaction) == jobs[:2]
        assert await transfers_of(api, jobs) == [
            ("queued", None),
            ("queued", None),
            ("waiting", 1),
            ("waiting", 2),
            ("waiting", 3),
        ]
        listed = (await api.get("/jobs")).json()["items"]
    assert [job["status"] for job in listed] == ["queued"] * 5
    assert [job["steps"][0]["place"] for job in listed] == [None] * 5
    assert [job["steps"][0]["status"] for job in listed] == ["waiting"] * 3 + ["queued"] * 2


async def test_the_share_of_one_tenant_delays_no_other_tenant(
    serve: Serve, make_key: MakeKey
) -> None:
    async with serve(tenant_steps_max=1) as api:
        stranger = api.of(await make_key(tenant="globex"))
        await submit(api, 3)

        (job_id,) = await submit(stranger, 1)

        assert await transfer_of(stranger, job_id) == ("queued", None)


async def test_the_end_of_a_step_releases_the_first_in_line(
    serve: Serve, transaction: BeginSession
) -> None:
    shares = StepSettings(tenant_steps_max=1)
    async with serve(tenant_steps_max=1) as api:
        jobs = await submit(api, 4)
        async with transaction() as session:
            await workers.store(session, jobs[0], settings=shares)
        async with transaction() as session:
            await workers.fail(session, jobs[1], code="staging_corrupt", settings=shares)

        assert await released(transaction) == jobs[:3]
        assert await transfers_of(api, jobs[2:]) == [("queued", None), ("waiting", 1)]


async def test_bulk_work_has_a_share_of_its_own(serve: Serve) -> None:
    async with serve(tenant_steps_max=2, tenant_bulk_steps_max=1) as api:
        bulk = await submit(api, 3, priority="bulk")
        interactive = await submit(api, 2)

        assert await transfers_of(api, bulk) == [("queued", None), ("waiting", 1), ("waiting", 2)]
        assert await transfers_of(api, interactive) == [("queued", None)] * 2
        job = (await api.get(f"/jobs/{bulk[0]}")).json()
        assert job["priority"] == "bulk"
        assert (await api.get(f"/jobs/{interactive[0]}")).json()["priority"] == "interactive"


async def test_bulk_work_waits_while_interactive_work_waits(
    serve: Serve, transaction: BeginSession
) -> None:
    shares = StepSettings(tenant_steps_max=1, tenant_bulk_steps_max=2)
    async with serve(tenant_steps_max=1, tenant_bulk_steps_max=2) as api:
        interactive = await submit(api, 3)
        bulk = await submit(api, 1, priority="bulk")
        assert await transfer_of(api, bulk[0]) == ("waiting", 1)

        async with transaction() as session:
            await workers.store(session, interactive[0], settings=shares)
        assert await transfer_of(api, interactive[1]) == ("queued", None)
        assert await transfer_of(api, bulk[0]) == ("waiting", 1)

        async with transaction() as session:
            await workers.store(session, interactive[1], settings=shares)
        assert await released(transaction) == [*interactive, *bulk]


async def test_cancelling_a_queued_step_releases_the_first_in_line(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(tenant_steps_max=1) as api:
        jobs = await submit(api, 3)

        await cancel(api, jobs[0])

        assert await released(transaction) == jobs[:2]
        assert await transfers_of(api, jobs) == [
            ("cancelled", None),
            ("queued", None),
            ("waiting", 1),
        ]


async def test_cancelling_a_running_step_releases_the_first_in_line(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(tenant_steps_max=1) as api:
        jobs = await submit(api, 2)
        async with transaction() as session:
            await workers.advance(session, jobs[0], done=1)

        await cancel(api, jobs[0])

        assert await transfers_of(api, jobs) == [("cancelled", None), ("queued", None)]


async def test_a_cancelled_waiting_step_is_never_released(
    serve: Serve, transaction: BeginSession
) -> None:
    shares = StepSettings(tenant_steps_max=1)
    async with serve(tenant_steps_max=1) as api:
        jobs = await submit(api, 3)

        await cancel(api, jobs[1])
        assert await transfers_of(api, jobs[1:]) == [("cancelled", None), ("waiting", 1)]
        async with transaction() as session:
            await workers.store(session, jobs[0], settings=shares)

        assert await released(transaction) == [jobs[0], jobs[2]]
        cancelled = (await api.get(f"/jobs/{jobs[1]}")).json()
    assert cancelled["status"] == "cancelled"
    assert [step["name"] for step in cancelled["steps"]] == ["transfer", "cleanup"]


async def test_concurrent_finalizes_of_a_new_tenant_keep_to_its_share(
    serve: Serve, transaction: BeginSession
) -> None:
    # Two gateways: within one, the tenant lock would serialise the requests. The tenant has no
    # counters yet that the requests could lock.
    async with serve(tenant_steps_max=3) as one, serve(tenant_steps_max=3) as other:
        uploads = [await one.sent(b"content") for _ in range(16)]

        answers = await asyncio.gather(
            *(api.finalize(upload_id) for api, upload_id in zip(cycle((one, other)), uploads))
        )

        assert [answer.status_code for answer in answers] == [202] * 16
        shown = [answer.json()["steps"][0] for answer in answers]
        assert sorted((step["status"], step["place"] or 0) for step in shown) == [
            *[("queued", 0)] * 3,
            *[("waiting", place) for place in range(1, 14)],
        ]
        assert len(await released(transaction)) == 3


async def test_a_finalize_beside_the_end_of_the_last_step_is_released(
    serve: Serve, transaction: BeginSession
) -> None:
    """No later step of the tenant would release it."""
    shares = StepSettings(tenant_steps_max=1)
    async with serve(tenant_steps_max=1) as api:
        (running,) = await submit(api, 1)
        for _ in range(30):
            upload_id = await api.sent(b"content")

            async def end(job_id: str) -> None:
                async with transaction() as session:
                    await workers.store(session, job_id, settings=shares)

            answer, _ = await asyncio.gather(api.finalize(upload_id), end(running))

            running = answer.json()["job_id"]
            assert await transfer_of(api, running) == ("queued", None)


async def test_the_answer_to_a_finalize_is_the_job_that_a_read_returns(serve: Serve) -> None:
    async with serve(tenant_steps_max=1) as api:
        answers = [await api.finalize(await api.sent(b"content")) for _ in range(3)]

        for answer in answers:
            job = answer.json()
            assert (await api.get(f"/jobs/{job['job_id']}")).json() == job


async def test_forms_and_references_have_a_priority(api: Api, transaction: BeginSession) -> None:
    async with transaction() as session:
        prefix = object_keys.incoming((await session.scalars(select(Tenant.id))).one())
    file = {"file": ("a.bin", b"content")}

    answers = [
        await api.ask("POST", "/upload-async", files=file, data={"priority": "bulk"}),
        await api.ask("POST", "/jobs", json={"object_key": f"{prefix}a", "priority": "bulk"}),
        await api.ask("POST", "/upload-async", files=file),
        await api.ask("POST", "/jobs", json={"object_key": f"{prefix}a"}),
    ]

    assert [answer.status_code for answer in answers] == [202] * 4
    jobs = [(await api.get(f"/jobs/{answer.json()['job_id']}")).json() for answer in answers]
    assert [job["priority"] for job in jobs] == ["bulk", "bulk", "interactive", "interactive"]
