"""The ledger: the deliveries that events have, against those in the log."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import delete

from gateway.administration.cli import main
from schemas.lifecycle import DeliveryStatus
from schemas.settings import DatabaseSettings
from schemas.tables import ledger
from schemas.tables.deliveries import Delivery
from schemas.tables.inbox import InboxMessage
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.log import START, Log, log_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def log(api: Api, transaction: BeginSession) -> Log:  # noqa: ARG001  # creates the tenant
    return await log_of(transaction)


async def test_every_delivery_of_an_event_is_counted_once(
    api: Api, log: Log, stranger: Api
) -> None:
    for status in (*DeliveryStatus, DeliveryStatus.DELIVERED):
        await log.delivery(status)
    await log.event()
    await api.ask("POST", f"{log.path}/ping")
    waiting = await log.event()
    async with log.transaction() as session:
        await session.execute(delete(InboxMessage).where(InboxMessage.event_id == waiting.id))

    found = (await api.get("/webhooks/ledger")).json()

    assert {name: found[name] for name in ("events", "waiting", "published")} == {
        "events": 8,
        "waiting": 1,
        "published": 6,
    }
    assert (found["delivered"], found["pending"]) == (2, 2)
    assert (found["exhausted"], found["discarded"]) == (1, 1)
    assert (found["difference"], found["is_complete"]) == (0, True)
    other = (await stranger.get("/webhooks/ledger")).json()
    assert (other["events"], other["published"]) == (0, 0)


async def test_a_lost_delivery_is_the_difference(api: Api, log: Log) -> None:
    await log.delivery()
    async with log.transaction() as session:
        await session.execute(delete(Delivery))

    assert (await api.get("/webhooks/ledger")).json()["difference"] == 1


async def test_a_resend_and_a_replay_keep_the_ledger_even(api: Api, log: Log) -> None:
    delivery = await log.delivery(DeliveryStatus.EXHAUSTED)

    await api.ask("POST", f"/deliveries/{delivery.id}/resend")

    found = (await api.get("/webhooks/ledger")).json()
    assert (found["pending"], found["exhausted"], found["difference"]) == (1, 0, 0)


async def test_the_ledger_begins_at_the_given_time(api: Api, log: Log) -> None:
    for minute in (0, 10, 20):
        await log.delivery(minute=minute)

    since = (START + timedelta(minutes=10)).isoformat()
    found = (await api.get("/webhooks/ledger", since=since)).json()

    assert (found["events"], found["published"]) == (2, 2)


async def test_the_parts_of_a_long_ledger_count_every_event_once(
    api: Api, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "EVENTS_MAX", 3)
    for minute in (0, 0, 5, 5, 10, 15, 20):
        await log.delivery(minute=minute)

    parts: list[dict[str, Any]] = []
    since = START.isoformat()
    while not parts or not parts[-1]["is_complete"]:
        parts.append((await api.get("/webhooks/ledger", since=since)).json())
        since = parts[-1]["until"]

    assert [part["events"] for part in parts] == [2, 2, 2, 1]
    assert [part["delivered"] for part in parts] == [2, 2, 2, 1]
    assert {part["difference"] for part in parts} == {0}


@pytest.mark.parametrize("since", ["2999-01-01T00:00:00Z", "2000-01-01T00:00:00Z", "noon"])
async def test_a_time_without_counts_is_refused(api: Api, since: str) -> None:
    assert problem(await api.get("/webhooks/ledger", since=since)) == (400, "invalid_request")


async def test_the_command_fails_if_a_tenant_is_not_even(
    log: Log, database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.database_url.get_secret_value())
    await log.delivery()
    await log.delivery(DeliveryStatus.EXHAUSTED)
    even = await run("webhooks", "ledger", "--json")
    async with log.transaction() as session:
        await session.execute(delete(Delivery).where(Delivery.status == DeliveryStatus.EXHAUSTED))

    uneven = await run("webhooks", "ledger")

    assert even[0] == 0, even[1]
    rows = {row["tenant"]: row for row in json.loads(even[1])}
    assert (rows["acme"]["published"], rows["acme"]["difference"]) == (2, 0)
    assert uneven[0] == 1
    assert "acme is not even" in uneven[1]


async def run(*arguments: str) -> tuple[int, str]:
    """Run a command, which starts an event loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, main, list(arguments))
    return result.exit_code, result.output
