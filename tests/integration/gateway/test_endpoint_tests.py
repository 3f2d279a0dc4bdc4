"""`…/ping` and `…/test`: events that only one endpoint receives."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from gateway.deliveries.testing import TEST_SOURCE
from schemas.events import envelope
from schemas.events.endpoints import Ping
from schemas.events.envelope import Envelope
from schemas.ids import EventId
from schemas.lifecycle import DeliveryStatus
from schemas.queues import NOTIFY
from schemas.tables.events import NO_FEED, EventRecord, events_after
from schemas.tables.inbox import InboxMessage
from schemas.tables.outbox import OutboxMessage
from schemas.topology import SUBSCRIPTIONS
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.log import Log, log_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def log(api: Api, transaction: BeginSession) -> Log:  # noqa: ARG001  # creates the tenant
    return await log_of(transaction, event_types=["document.ingested"])


async def sent_to(log: Log, answer: dict[str, Any]) -> Envelope:
    """Return the event of a test, whose only delivery is due."""
    (delivery,) = await log.rows()
    assert str(delivery.id) == answer["delivery_id"]
    assert str(delivery.event_id) == answer["event_id"]
    assert (delivery.status, delivery.attempts_made) == (DeliveryStatus.PENDING, 0)
    assert not delivery.ordered
    due_at = (await log.queue()).due_at
    assert delivery.next_attempt_at is not None
    assert due_at is not None
    assert due_at >= delivery.next_attempt_at
    async with log.transaction() as session:
        row = await session.get_one(EventRecord, EventId(delivery.event_id))
        return envelope.decode(row.body)


async def test_a_ping_is_due_at_once(api: Api, log: Log) -> None:
    answer = await api.ask("POST", f"{log.path}/ping")

    assert answer.status_code == 202
    event = await sent_to(log, answer.json())
    assert event.data == Ping(endpoint_id=log.webhook_id)
    assert event.tenantid == log.tenant_id
    links = answer.json()["links"]
    shown = await api.http.get(links["delivery"], headers=api.authorization)
    assert shown.json()["event"]["type"] == "ping"


@pytest.mark.parametrize("event_type", SUBSCRIPTIONS[NOTIFY])
async def test_the_example_of_any_event_can_be_sent(api: Api, log: Log, event_type: str) -> None:
    answer = await api.ask("POST", f"{log.path}/test", json={"event_type": event_type})

    assert answer.status_code == 202
    event = await sent_to(log, answer.json())
    assert (event.type, event.source) == (event_type, TEST_SOURCE)
    assert event.tenantid == log.tenant_id


async def test_a_test_event_is_neither_published_nor_in_the_feed(api: Api, log: Log) -> None:
    await api.ask("POST", f"{log.path}/test", json={"event_type": "upload.stored"})
    await api.ask("POST", f"{log.path}/ping")

    async with log.transaction() as session:
        assert await session.scalar(select(func.count()).select_from(OutboxMessage)) == 0
        assert set(await session.scalars(select(EventRecord.position))) == {NO_FEED}
        feed = events_after(log.tenant_id, position=0, limit=10)
        assert (await session.execute(feed)).all() == []
        # Otherwise the watchdog would publish the event to every endpoint.
        applied = await session.scalars(select(InboxMessage.deliveries))
        assert applied.all() == [1, 1]


@pytest.mark.parametrize("event_type", ["upload.finalized", "webhook.replay_requested", "no.such"])
async def test_an_event_that_no_endpoint_receives_is_refused_by_name(
    api: Api, log: Log, event_type: str
) -> None:
    answer = await api.ask("POST", f"{log.path}/test", json={"event_type": event_type})

    assert problem(answer) == (400, "invalid_request")
    assert event_type in answer.text
    assert await log.rows() == []


@pytest.mark.parametrize(
    ("call", "body"),
    [
        pytest.param("ping", None, id="ping"),
        pytest.param("test", {"event_type": "upload.stored"}, id="test"),
    ],
)
async def test_a_test_with_a_key_is_sent_once(
    api: Api, log: Log, call: str, body: dict[str, str] | None
) -> None:
    headers = {"Idempotency-Key": "one"}
    answers = [
        await api.ask("POST", f"{log.path}/{call}", headers=headers, json=body) for _ in range(2)
    ]

    assert answers[0].status_code == 202
    assert answers[0].json() == answers[1].json()
    assert len(await log.rows()) == 1
    other = await log_of(log.transaction)
    reused = await api.ask("POST", f"{other.path}/{call}", headers=headers, json=body)
    assert problem(reused) == (422, "idempotency_key_reused")


async def test_the_endpoint_of_another_tenant_is_not_tested(log: Log, stranger: Api) -> None:
    assert problem(await stranger.ask("POST", f"{log.path}/ping")) == (404, "webhook_not_found")
    assert await log.rows() == []


async def test_a_test_event_has_the_fields_of_its_example(api: Api, log: Log) -> None:
    await api.ask("POST", f"{log.path}/test", json={"event_type": "document.ingested"})

    (delivery,) = await log.rows()
    shown = (await api.get(f"/deliveries/{delivery.id}")).json()["event"]
    assert shown["data"]["outcome"] == "partial"
    assert msgspec.json.decode(msgspec.json.encode(shown))["id"] == str(delivery.event_id)
