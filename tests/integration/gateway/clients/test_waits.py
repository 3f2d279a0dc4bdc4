"""Clients that wait for a job: by long polls, by `Prefer: wait`, and by event streams."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import text

from gateway.administration import keys
from schemas.api.scopes import Scope
from schemas.lifecycle import JobStatus
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api
from tests.integration.gateway.clients.conftest import Gateway
from tests.integration.gateway.clients.raw import Answer, Connection

pytestmark = pytest.mark.anyio

PROXY_TIMEOUT_SECONDS = 60
"""How long nginx and load balancers wait for an answer by default."""

WAITS = 10
"""The most waits of one key in these tests."""

COMPARE_SECONDS = 15
"""How long the gateway takes at most to find a change without a notification."""


@pytest.fixture(scope="module")
def gateway_settings() -> Mapping[str, str]:
    return {"WAITS_PER_KEY": str(WAITS)}


@pytest.fixture
async def other_key(gateway: Gateway) -> str:
    """Another API key of the same tenant."""
    async with gateway.transaction() as session:
        created = await keys.create(session, tenant="acme", scopes=tuple(Scope), actor="test")
    return created.key


async def settle(gateway: Gateway, job_id: str) -> None:
    async with gateway.transaction() as session:
        await workers.store(session, job_id)


@asynccontextmanager
async def waiting(
    gateway: Gateway, job_id: str, *, number: int = WAITS, path: str = "?wait=50"
) -> AsyncIterator[list[Connection]]:
    """Open so many waits of a job; the gateway holds them all in the block."""
    event = "job.streamed" if path == "/events" else "job.awaited"
    begun = len(gateway.process.logged(event))
    async with AsyncExitStack() as end:
        connections = [await end.enter_async_context(gateway.connect()) for _ in range(number)]
        for connection in connections:
            await connection.request("GET", f"/api/v1/jobs/{job_id}{path}")
        await gateway.process.logged_times(event, count=begun + number)
        yield connections


async def asked(gateway: Gateway, path: str) -> Answer:
    async with gateway.connect() as connection:
        await connection.request("GET", path)
        return await connection.answer()


def names_of(stream: Answer) -> list[str]:
    """Return the names of the events of a stream."""
    assert stream.status == 200, stream.body
    lines = stream.body.decode().splitlines()
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


async def events_of(gateway: Gateway, job_id: str, *fields: str) -> list[str]:
    """Return the names of all events of a stream, which the gateway ends."""
    async with gateway.connect() as connection:
        await connection.request("GET", f"/api/v1/jobs/{job_id}/events", *fields)
        return names_of(await connection.answer())


async def commits(gateway: Gateway) -> int:
    """Return the number of transactions of the database so far."""
    async with gateway.transaction() as session:
        return int(
            await session.scalar(
                text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
            )
            or 0
        )


@pytest.mark.parametrize("last", ["", "x", "-1", "1.5", "\xb2", "9" * 30, "1000"])
async def test_a_client_with_a_wrong_last_event_id_gets_the_last_event(
    gateway: Gateway, api: Api, last: str
) -> None:
    _, job_id = await api.finalized()
    await settle(gateway, job_id)

    assert await events_of(gateway, job_id, f"Last-Event-ID: {last}") == ["completed"]


async def test_a_client_with_an_id_ahead_of_an_open_job_gets_its_events_from_the_start(
    gateway: Gateway, api: Api
) -> None:
    _, job_id = await api.finalized()
    streams = len(gateway.process.logged("job.streamed"))
    following = asyncio.create_task(events_of(gateway, job_id, "Last-Event-ID: 1000"))
    await gateway.process.logged_times("job.streamed", count=streams + 1)

    await settle(gateway, job_id)

    assert await following == ["progress", "completed"]


async def test_the_granted_wait_is_shorter_than_the_timeout_of_proxies(
    gateway: Gateway, api: Api
) -> None:
    waits = len(gateway.process.logged("job.awaited"))
    upload_id = await api.sent(b"content")
    finalizing = asyncio.create_task(api.finalize(upload_id, headers={"Prefer": "wait=600"}))
    *_, awaited = await gateway.process.logged_times("job.awaited", count=waits + 1)

    await settle(gateway, awaited["job_id"])

    answer = await finalizing
    granted = int(answer.headers["preference-applied"].removeprefix("wait="))
    assert (answer.status_code, granted) == (200, awaited["seconds"])
    assert granted <= PROXY_TIMEOUT_SECONDS - 10


async def test_all_waits_of_a_job_are_answered_when_it_settles(gateway: Gateway, api: Api) -> None:
    _, job_id = await api.finalized()
    async with (
        waiting(gateway, job_id, number=WAITS // 2) as polls,
        waiting(gateway, job_id, number=WAITS // 2, path="/events") as streams,
    ):
        await settle(gateway, job_id)

        polled = [await connection.answer() for connection in polls]
        followed = [await connection.answer() for connection in streams]

    assert {answer.json["status"] for answer in polled} == {JobStatus.COMPLETED}
    assert {names_of(answer)[-1] for answer in followed} == {"completed"}


async def test_waits_cost_no_transactions_while_nothing_changes(gateway: Gateway, api: Api) -> None:
    seconds = 4
    _, job_id = await api.finalized()
    async with waiting(gateway, job_id):
        before = await commits(gateway)
        await asyncio.sleep(seconds)
        spent = await commits(gateway) - before

    # PostgreSQL counts the transactions of a connection up to ten seconds late: those with which the
    # waits began are among them.
    assert spent < 2 * WAITS + 5 < WAITS * seconds


@pytest.mark.parametrize("path", ["?wait=50", "/events"], ids=["long_poll", "stream"])
async def test_a_change_during_a_lost_connection_is_found_after_the_reconnect(
    gateway: Gateway, api: Api, path: str
) -> None:
    _, job_id = await api.finalized()
    async with waiting(gateway, job_id, number=1, path=path) as (connection,):
        async with gateway.transaction() as session:
            await session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE 'waybill-%'"
                    " AND pid <> pg_backend_pid()"
                )
            )
            # The notification of this commit comes while nobody listens.
            await workers.store(session, job_id)

        async with asyncio.timeout(COMPARE_SECONDS / 2):
            answer = await connection.answer()

    assert answer.status == 200
    assert b'"status":"completed"' in answer.body


@pytest.mark.parametrize("path", ["?wait=50", "/events"], ids=["long_poll", "stream"])
@pytest.mark.parametrize("held", ["?wait=50", "/events"], ids=["of_polls", "of_streams"])
async def test_a_wait_beyond_the_limit_of_its_key_is_refused(
    gateway: Gateway, api: Api, held: str, path: str
) -> None:
    _, job_id = await api.finalized()
    async with waiting(gateway, job_id, path=held):
        refused = await asked(gateway, f"/api/v1/jobs/{job_id}{path}")
        at_once = await asked(gateway, f"/api/v1/jobs/{job_id}")

    assert (refused.status, refused.json["code"]) == (429, "too_many_waits")
    assert int(refused.fields["retry-after"]) > 0
    assert at_once.status == 200


async def test_the_wait_of_another_key_is_not_refused(
    gateway: Gateway, api: Api, other_key: str
) -> None:
    _, job_id = await api.finalized()
    async with waiting(gateway, job_id):
        answer = await api.of(other_key).get(f"/jobs/{job_id}", wait=1)

    assert answer.status_code == 200


async def test_a_settled_job_is_answered_whatever_waits(gateway: Gateway, api: Api) -> None:
    _, open_job = await api.finalized()
    _, settled = await api.finalized()
    await settle(gateway, settled)
    async with waiting(gateway, open_job):
        polled = await asked(gateway, f"/api/v1/jobs/{settled}?wait=50")
        followed = await events_of(gateway, settled)

    assert (polled.status, followed) == (200, ["completed"])


async def test_a_finalize_beyond_the_limit_is_answered_at_once(gateway: Gateway, api: Api) -> None:
    upload_id = await api.sent(b"content")
    _, job_id = await api.finalized()
    async with waiting(gateway, job_id), asyncio.timeout(10):
        answer = await api.finalize(upload_id, headers={"Prefer": "wait=50"})

    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert "preference-applied" not in answer.headers


async def test_a_wait_whose_client_has_disconnected_does_not_count(
    gateway: Gateway, api: Api
) -> None:
    _, job_id = await api.finalized()
    answered = len(gateway.process.logged("http.request"))
    async with waiting(gateway, job_id):
        pass
    await gateway.process.logged_times("http.request", count=answered + WAITS)

    async with waiting(gateway, job_id):
        assert (await asked(gateway, f"/api/v1/jobs/{job_id}?wait=50")).status == 429
