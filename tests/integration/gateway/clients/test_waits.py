"""Clients that wait for a job: by long polls, by `Prefer: wait`, and by EventSource."""

import asyncio

import pytest

from gateway import db
from schemas.settings import DatabaseSettings
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api
from tests.integration.gateway.clients.conftest import Gateway

pytestmark = pytest.mark.anyio

PROXY_TIMEOUT_SECONDS = 60
"""How long nginx and load balancers wait for an answer by default."""


async def settle(database: DatabaseSettings, job_id: str) -> None:
    engine = db.build_engine(database)
    async with db.Database(engine).transaction() as session:
        await workers.store(session, job_id)
    await engine.dispose()


async def events_of(gateway: Gateway, job_id: str, *fields: str) -> list[str]:
    """Return the names of all events of a stream, which the gateway ends."""
    async with gateway.connect() as connection:
        await connection.request("GET", f"/api/v1/jobs/{job_id}/events", *fields)
        answer = await connection.answer()
    assert answer.status == 200, answer.body
    return [line[7:] for line in answer.body.decode().splitlines() if line.startswith("event: ")]


@pytest.mark.parametrize("last", ["", "x", "-1", "1.5", "\xb2", "9" * 30, "1000"])
async def test_a_client_with_a_wrong_last_event_id_gets_the_last_event(
    gateway: Gateway, api: Api, module_database: DatabaseSettings, last: str
) -> None:
    _, job_id = await api.finalized()
    await settle(module_database, job_id)

    assert await events_of(gateway, job_id, f"Last-Event-ID: {last}") == ["completed"]


async def test_a_client_with_an_id_ahead_of_an_open_job_gets_its_events_from_the_start(
    gateway: Gateway, api: Api, module_database: DatabaseSettings
) -> None:
    _, job_id = await api.finalized()
    following = asyncio.create_task(events_of(gateway, job_id, "Last-Event-ID: 1000"))
    await gateway.process.first_logged("job.streamed")

    await settle(module_database, job_id)

    assert await following == ["progress", "completed"]


async def test_the_granted_wait_is_shorter_than_the_timeout_of_proxies(
    gateway: Gateway, api: Api, module_database: DatabaseSettings
) -> None:
    upload_id = await api.sent(b"content")
    finalizing = asyncio.create_task(api.finalize(upload_id, headers={"Prefer": "wait=600"}))
    awaited = await gateway.process.first_logged("job.awaited")

    await settle(module_database, awaited["job_id"])

    answer = await finalizing
    granted = int(answer.headers["preference-applied"].removeprefix("wait="))
    assert (answer.status_code, granted) == (200, awaited["seconds"])
    assert granted <= PROXY_TIMEOUT_SECONDS - 10
