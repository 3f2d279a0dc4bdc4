"""`…/replay`: the job that a request adds, and its end by a client. The worker has tests of its own."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from schemas.events import envelope
from schemas.events.endpoints import ReplayRequested
from schemas.lifecycle import DeliveryStatus, StepStatus
from schemas.queues import EXPORTS
from schemas.steps import StepName
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.webhooks import Webhook
from tests.factories.jobs import step_update
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.log import Log, log_of

pytestmark = pytest.mark.anyio

SINCE = (datetime.now(UTC) - timedelta(hours=2)).isoformat()


@pytest.fixture
async def log(api: Api, transaction: BeginSession) -> Log:  # noqa: ARG001  # creates the tenant
    return await log_of(transaction)


async def replayed(api: Api, log: Log, **request: Any) -> dict[str, Any]:  # noqa: ANN401  # any field
    answer = await api.ask("POST", f"{log.path}/replay", json={"since": SINCE, **request})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


async def orders(log: Log) -> list[ReplayRequested]:
    """Return the orders that were given to the queue of the step."""
    async with log.transaction() as session:
        bodies = await session.scalars(
            select(EventRecord.body)
            .join(OutboxMessage, OutboxMessage.event_id == EventRecord.id)
            .where(OutboxMessage.queue == EXPORTS)
            .order_by(EventRecord.id)
        )
        found = [envelope.decode(body).data for body in bodies]
    return [order for order in found if isinstance(order, ReplayRequested)]


async def test_a_replay_is_a_job_whose_order_says_what_to_do(api: Api, log: Log) -> None:
    job = await replayed(
        api, log, failed=True, event_types=["document.*"], include_undelivered=True
    )

    assert (job["kind"], job["stage"], job["status"]) == ("replay", "replay", "queued")
    assert job["webhook_id"] == str(log.webhook_id)
    assert (job["upload_id"], job["progress"]) == (None, 0)
    (step,) = job["steps"]
    assert (step["name"], step["unit"]) == ("replay", "seconds")
    assert step["total"] == pytest.approx(
        (datetime.now(UTC) - datetime.fromisoformat(SINCE)).total_seconds(), abs=60
    )
    (order,) = await orders(log)
    assert order.endpoint_id == log.webhook_id
    assert set(order.statuses) == {DeliveryStatus.EXHAUSTED, DeliveryStatus.DISCARDED}
    assert (order.event_types, order.include_undelivered) == (("document.*",), True)
    assert order.since.isoformat() == SINCE
    assert datetime.now(UTC) - order.until < timedelta(minutes=1)


async def test_every_settled_delivery_is_replayed_by_default(api: Api, log: Log) -> None:
    await replayed(api, log)

    (order,) = await orders(log)
    assert set(order.statuses) == set(DeliveryStatus) - {DeliveryStatus.PENDING}


async def test_a_repeated_request_with_a_key_returns_the_same_job(api: Api, log: Log) -> None:
    headers = {"Idempotency-Key": "once"}
    jobs = [
        (
            await api.ask("POST", f"{log.path}/replay", headers=headers, json={"since": SINCE})
        ).json()["job_id"]
        for _ in range(2)
    ]

    assert jobs[0] == jobs[1]
    assert len(await orders(log)) == 1


async def test_an_endpoint_has_one_replay_at_a_time(api: Api, log: Log) -> None:
    job = await replayed(api, log)

    second = await api.ask("POST", f"{log.path}/replay", json={"since": SINCE})
    assert problem(second) == (409, "webhook_busy")
    assert job["job_id"] in second.text
    async with log.transaction() as session:
        await session.execute(step_update(job["job_id"], StepName.REPLAY, StepStatus.COMPLETED))
    assert (await replayed(api, log))["job_id"] != job["job_id"]


async def test_of_two_replays_through_two_gateways_at_once_one_is_refused(
    api: Api, serve: Serve, log: Log
) -> None:
    async with serve() as other:
        answers = await asyncio.gather(
            *(
                each.ask("POST", f"{log.path}/replay", json={"since": SINCE})
                for each in (api, other.of(api.key)) * 4
            )
        )
    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 7]
    assert len(await orders(log)) == 1


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"since": "2999-01-01T00:00:00Z"}, "since"),
        ({"since": SINCE, "until": "2000-01-01T00:00:00Z"}, "since"),
        ({"since": SINCE, "failed": True, "statuses": ["delivered"]}, "statuses"),
        ({"since": SINCE, "statuses": ["pending"]}, "statuses"),
        ({"since": SINCE, "event_types": ["upload.finalized"]}, "event_types"),
        ({"since": "2026-11-27T08:00:00"}, "since"),
        ({}, "since"),
    ],
    ids=str,
)
async def test_a_replay_of_nothing_is_refused(
    api: Api, log: Log, request_: dict[str, Any], field: str
) -> None:
    answer = await api.ask("POST", f"{log.path}/replay", json=request_)

    assert problem(answer) == (400, "invalid_request")
    assert field in answer.text
    assert await orders(log) == []


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param({"deleted_at": func.now()}, (404, "webhook_not_found"), id="deleted"),
        pytest.param({"disabled_at": func.now()}, (409, "webhook_disabled"), id="disabled"),
    ],
)
async def test_an_endpoint_that_is_off_has_no_replay(
    api: Api, log: Log, columns: dict[str, Any], expected: tuple[int, str]
) -> None:
    async with log.transaction() as session:
        await session.execute(update(Webhook).values(**columns))

    answer = await api.ask("POST", f"{log.path}/replay", json={"since": SINCE})

    assert problem(answer) == expected


async def test_a_replay_can_be_cancelled(api: Api, log: Log, stranger: Api) -> None:
    job = await replayed(api, log)
    path = f"/jobs/{job['job_id']}/cancel"

    assert problem(await stranger.ask("POST", path)) == (404, "job_not_found")
    answers = [await api.ask("POST", path) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.json()["status"] for answer in answers} == {"cancelled"}
    assert (await replayed(api, log))["status"] == "queued"


async def test_a_replay_that_has_ended_is_not_cancelled(api: Api, log: Log) -> None:
    job = await replayed(api, log)
    async with log.transaction() as session:
        await session.execute(step_update(job["job_id"], StepName.REPLAY, StepStatus.COMPLETED))

    answer = await api.ask("POST", f"/jobs/{job['job_id']}/cancel")

    assert problem(answer) == (409, "job_not_cancellable")


async def test_a_cancelled_replay_goes_on_where_it_stopped_unless_another_one_runs(
    api: Api, log: Log
) -> None:
    job = await replayed(api, log)
    path = f"/jobs/{job['job_id']}"
    async with log.transaction() as session:
        await session.execute(
            step_update(
                job["job_id"], StepName.REPLAY, StepStatus.RUNNING, done=5, checkpoint={"a": 1}
            )
        )
    await api.ask("POST", f"{path}/cancel")
    other = await replayed(api, log)

    refused = await api.ask("POST", f"{path}/retry")
    assert problem(refused) == (409, "job_busy")
    assert other["job_id"] in refused.text
    await api.ask("POST", f"/jobs/{other['job_id']}/cancel")
    answer = await api.ask("POST", f"{path}/retry")

    assert answer.status_code == 202, answer.text
    async with log.transaction() as session:
        step = await session.get_one(Step, (UUID(job["job_id"]), StepName.REPLAY))
    assert (step.status, step.done, step.checkpoint) == (StepStatus.QUEUED, 5, {"a": 1})
