"""New work is refused while too many steps wait."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, event, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.backlog import Backlog, SystemBusy, TooManyWaiting
from gateway.db import SessionStatements
from schemas import object_keys
from schemas.ids import TenantId
from schemas.lifecycle import Priority
from schemas.settings import BacklogSettings
from schemas.steps import StepName
from schemas.tables.steps import TenantSteps
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve

pytestmark = pytest.mark.anyio

KEY = {"Idempotency-Key": "once"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def add_waiting(
    session: AsyncSession, *, waiting: int, finished: int = 0, priority: Priority
) -> TenantId:
    """Add a tenant with waiting steps; only their counters exist."""
    tenant_id = TenantId(uuid4())
    session.add(Tenant(id=tenant_id, name=str(tenant_id)))
    await session.flush()
    session.add(
        TenantSteps(
            tenant_id=tenant_id,
            name=StepName.TRANSFER,
            priority=priority,
            waiting=waiting,
            finished=finished,
        )
    )
    return tenant_id


async def set_counters(session: AsyncSession, *, waiting: int, finished: int) -> None:
    await session.execute(update(TenantSteps).values(waiting=waiting, finished=finished))


async def submit_form(api: Api, *, headers: dict[str, str] | None = None) -> httpx.Response:
    return await api.ask(
        "POST", "/upload-async", files={"file": ("a.bin", b"content")}, headers=headers
    )


async def test_new_work_of_a_tenant_with_too_many_waiting_steps_is_refused(
    serve: Serve, transaction: BeginSession, make_key: MakeKey
) -> None:
    async with serve(tenant_steps_max=1, tenant_waiting_max=2) as api:
        stranger = api.of(await make_key(tenant="globex"))
        async with transaction() as session:
            tenant_id = (
                await session.scalars(select(Tenant.id).where(Tenant.name == "acme"))
            ).one()
        reference = {"object_key": object_keys.incoming(tenant_id) + "a"}
        form = await submit_form(api, headers={"Idempotency-Key": "form"})
        referenced = await api.ask("POST", "/jobs", json=reference, headers=KEY)
        upload_id, job_id = await api.finalized()
        refused_id = await api.sent(b"content")

        refusals = [
            await api.finalize(refused_id),
            await submit_form(api),
            await api.ask("POST", "/jobs", json=reference),
        ]

        assert [problem(answer) for answer in refusals] == [(429, "too_many_waiting")] * 3
        for answer in refusals:
            assert 1 <= int(answer.headers["retry-after"]) <= 600
        async with transaction() as session:
            count = await session.scalar(
                select(func.count()).select_from(Upload).where(Upload.status == "open")
            )
        assert count == 1, "nothing of the refused form is kept"
        assert (await api.finalize(upload_id)).json()["job_id"] == job_id
        repeated = await submit_form(api, headers={"Idempotency-Key": "form"})
        assert repeated.json() == form.json()
        repeated = await api.ask("POST", "/jobs", json=reference, headers=KEY)
        assert repeated.json() == referenced.json()
        await stranger.finalized()

        assert (await api.ask("DELETE", f"/uploads/{upload_id}")).status_code == 200
        assert (await api.finalize(refused_id)).status_code == 202


async def test_new_work_is_refused_while_the_system_is_busy(
    serve: Serve, transaction: BeginSession
) -> None:
    async with transaction() as session:
        await add_waiting(session, waiting=10, priority=Priority.BULK)
    async with serve(system_waiting_max=10) as api:
        answer = await api.finalize(await api.sent(b"content"))

    assert problem(answer) == (503, "system_busy")
    assert answer.headers["retry-after"] == "30"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backlog(clock: Clock) -> Backlog:
    settings = BacklogSettings(tenant_waiting_max=100, system_waiting_max=1000)
    return Backlog(settings, monotonic=clock)


@pytest.fixture
async def session(transaction: BeginSession) -> AsyncIterator[AsyncSession]:
    async with transaction() as session:
        yield session


async def test_the_counters_of_the_system_are_read_once_a_second(
    session: AsyncSession, backlog: Backlog, clock: Clock
) -> None:
    tenant_id = TenantId(uuid4())
    await add_waiting(session, waiting=999, priority=Priority.INTERACTIVE)
    await backlog.check(SessionStatements(session), tenant_id=tenant_id)

    await set_counters(session, waiting=1000, finished=0)
    clock.now += 0.9
    await backlog.check(SessionStatements(session), tenant_id=tenant_id)

    clock.now += 0.1
    with pytest.raises(SystemBusy):
        await backlog.check(SessionStatements(session), tenant_id=tenant_id)
    await set_counters(session, waiting=999, finished=1)
    with pytest.raises(SystemBusy):
        await backlog.check(SessionStatements(session), tenant_id=tenant_id)
    clock.now += 1
    await backlog.check(SessionStatements(session), tenant_id=tenant_id)


async def test_the_rate_of_the_system_says_when_to_try_again(
    session: AsyncSession, backlog: Backlog, clock: Clock
) -> None:
    tenant_id = TenantId(uuid4())
    await add_waiting(session, waiting=1099, finished=500, priority=Priority.INTERACTIVE)
    with pytest.raises(SystemBusy) as first:
        await backlog.check(SessionStatements(session), tenant_id=tenant_id)

    clock.now += 10
    await set_counters(session, waiting=1099, finished=700)
    with pytest.raises(SystemBusy) as second:
        await backlog.check(SessionStatements(session), tenant_id=tenant_id)

    assert first.value.retry_after == timedelta(seconds=30)
    assert second.value.retry_after == timedelta(seconds=100 / 20)


async def test_the_rate_of_a_tenant_says_when_to_try_again(
    session: AsyncSession, backlog: Backlog, clock: Clock
) -> None:
    tenant_id = await add_waiting(session, waiting=119, priority=Priority.INTERACTIVE)
    with pytest.raises(TooManyWaiting) as first:
        await backlog.check(SessionStatements(session), tenant_id=tenant_id)

    clock.now += 10
    await set_counters(session, waiting=119, finished=40)
    with pytest.raises(TooManyWaiting) as second:
        await backlog.check(SessionStatements(session), tenant_id=tenant_id)

    assert first.value.retry_after == timedelta(seconds=30)
    assert second.value.retry_after == timedelta(seconds=20 / 4)


async def test_concurrent_requests_share_one_read_of_the_system(
    transaction: BeginSession, backlog: Backlog
) -> None:
    reads: list[str] = []

    def note(*arguments: Any) -> None:  # noqa: ANN401  # SQLAlchemy's signature
        if "waiting >" in arguments[2]:
            reads.append(arguments[2])

    async def check() -> None:
        async with transaction() as session:
            await backlog.check(SessionStatements(session), tenant_id=TenantId(uuid4()))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await asyncio.gather(*(check() for _ in range(20)))
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert len(reads) == 1
