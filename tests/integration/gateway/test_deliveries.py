"""The log of deliveries, and a delivery that is sent again."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, update

from gateway.deliveries import listing
from schemas.ids import EventId
from schemas.lifecycle import DeliveryStatus
from schemas.policy.retry_schedule import ATTEMPTS_MAX
from schemas.tables.deliveries import Delivery, DeliveryQueue, delivery_id_of, delivery_ids_of
from schemas.tables.events import EventRecord
from schemas.tables.webhooks import Webhook
from tests.factories.deliveries import a_delivery, an_attempt, an_event_row
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.log import START, Log, log_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def log(api: Api, transaction: BeginSession) -> Log:  # noqa: ARG001  # creates the tenant
    return await log_of(transaction)


def ids_of(page: dict[str, Any]) -> list[str]:
    return [item["delivery_id"] for item in page["items"]]


def text_of(*deliveries: Delivery) -> list[str]:
    return [str(delivery.id) for delivery in deliveries]


async def all_pages(api: Api, path: str, **query: Any) -> list[str]:  # noqa: ANN401  # any query
    found, cursor = list[str](), None
    while True:
        answer = await api.get(path, **query, **({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += ids_of(page)
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_the_id_of_a_delivery_is_that_of_the_database(
    log: Log, transaction: BeginSession
) -> None:
    event = an_event_row(log.tenant_id)
    async with transaction() as session:
        found = await session.scalar(select(func.waybill_delivery_id(event.id, log.webhook_id)))

    assert found == delivery_id_of(event.id, log.webhook_id)
    first, last = delivery_ids_of(event.id)
    assert first <= found <= last


async def test_deliveries_are_listed_newest_event_first_page_by_page(api: Api, log: Log) -> None:
    added = [await log.delivery(minute=minute) for minute in (3, 1, 4, 2)]
    other = await log_of(log.transaction)
    await other.delivery()

    found = await all_pages(api, f"{log.path}/deliveries", limit=3)

    newest = sorted(added, key=lambda each: each.created_at, reverse=True)
    assert found == text_of(*newest)


async def test_a_listed_delivery_has_its_last_attempt(api: Api, log: Log) -> None:
    delivery = await log.delivery(DeliveryStatus.PENDING, attempts_made=2)
    await log.add(
        an_attempt(delivery.id, 1, outcome="timed_out", status_code=None, error="connect"),
        an_attempt(delivery.id, 2, outcome="server_error", status_code=503, duration_us=1_500),
    )

    (item,) = (await api.get(f"{log.path}/deliveries")).json()["items"]

    assert item["status"] == "pending"
    assert item["event_id"] == str(delivery.event_id)
    assert item["attempts_made"] == 2
    assert item["settled_at"] is None
    last = item["last_attempt"]
    assert (last["number"], last["outcome"], last["status_code"]) == (2, "server_error", 503)
    assert last["total_ms"] == 1.5


async def test_a_delivery_without_an_attempt_is_listed(api: Api, log: Log) -> None:
    await log.delivery(DeliveryStatus.DISCARDED, attempts_made=0)

    (item,) = (await api.get(f"{log.path}/deliveries")).json()["items"]

    assert item["last_attempt"] is None
    assert item["reason"] == "endpoint_disabled"


@pytest.mark.parametrize("status", DeliveryStatus)
async def test_deliveries_are_listed_by_status(api: Api, log: Log, status: DeliveryStatus) -> None:
    wanted = [await log.delivery(each) for each in DeliveryStatus if each is status]
    for each in DeliveryStatus:
        if each is not status:
            await log.delivery(each)

    assert await all_pages(api, f"{log.path}/deliveries", status=status) == text_of(*wanted)


async def test_deliveries_are_listed_by_type_event_and_time(api: Api, log: Log) -> None:
    early, late = await log.delivery(minute=1), await log.delivery(minute=5)
    path = f"{log.path}/deliveries"

    assert await all_pages(api, path, event_type="upload.failed") == text_of(late, early)
    assert await all_pages(api, path, event_type="upload.stored") == []
    assert await all_pages(api, path, event_id=early.event_id) == text_of(early)
    third_minute = (START + timedelta(minutes=3)).isoformat()
    assert await all_pages(api, path, since=third_minute) == text_of(late)
    assert await all_pages(api, path, until=third_minute) == text_of(early)
    assert await all_pages(api, path, since=late.created_at.isoformat()) == text_of(late)
    assert await all_pages(api, path, until=late.created_at.isoformat()) == text_of(early)


async def test_a_call_reads_a_bounded_number_of_deliveries(
    api: Api, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCANNED_MAX", 2)
    pending = await log.delivery(DeliveryStatus.PENDING, minute=0)
    for minute in range(1, 5):
        await log.delivery(minute=minute)
    path = f"{log.path}/deliveries"

    first = (await api.get(path, status="pending", limit=1)).json()

    assert first["items"] == []
    assert first["next_cursor"] is not None
    assert await all_pages(api, path, status="pending", limit=1) == text_of(pending)


async def test_the_log_of_a_deleted_endpoint_stays_readable(api: Api, log: Log) -> None:
    delivery = await log.delivery()
    async with log.transaction() as session:
        await session.execute(update(Webhook).values(deleted_at=func.now()))

    assert await all_pages(api, f"{log.path}/deliveries") == text_of(delivery)


async def test_a_malformed_filter_is_refused(api: Api, log: Log) -> None:
    for query in (
        {"status": "lost"},
        {"event_type": "\x00"},
        {"since": "yesterday"},
        {"event_id": "1"},
        {"cursor": "x"},
    ):
        answer = await api.get(f"{log.path}/deliveries", **query)
        assert problem(answer) == (400, "invalid_request"), query


async def test_the_log_of_another_tenant_is_not_found(api: Api, log: Log, stranger: Api) -> None:
    delivery = await log.delivery()

    assert problem(await stranger.get(f"{log.path}/deliveries")) == (404, "webhook_not_found")
    for path in (f"{log.path}/deliveries/{delivery.id}", f"/deliveries/{delivery.id}"):
        assert problem(await stranger.get(path)) == (404, "delivery_not_found")
    resent = await stranger.ask("POST", f"/deliveries/{delivery.id}/resend")
    assert problem(resent) == (404, "delivery_not_found")
    deliveries = await stranger.ask("GET", f"/events/{delivery.event_id}/deliveries")
    assert problem(deliveries) == (404, "event_not_found")
    assert (await api.get(f"/deliveries/{delivery.id}")).status_code == 200


async def test_a_delivery_shows_every_attempt_and_the_event_as_sent(api: Api, log: Log) -> None:
    event = await log.event()
    delivery = await log.delivery(event=event, attempts_made=2)
    await log.add(
        an_attempt(delivery.id, 1, outcome="server_error", status_code=500, response_excerpt="no"),
        an_attempt(
            delivery.id,
            2,
            dns_us=1_000,
            connect_us=2_000,
            tls_us=3_500,
            first_byte_us=40_001,
            remote_address="203.0.113.9",
            request_headers={"webhook-id": str(event.id), "authorization": "***"},
        ),
    )

    answer = await api.get(f"/deliveries/{delivery.id}")

    shown = answer.json()
    assert event.body in answer.content
    first, second = shown["attempts"]
    assert (first["response_excerpt"], first["status_code"]) == ("no", 500)
    assert first["timings"] == {
        "dns_ms": None,
        "connect_ms": None,
        "tls_ms": None,
        "first_byte_ms": None,
        "total_ms": 45.678,
    }
    assert second["timings"] == {
        "dns_ms": 1.0,
        "connect_ms": 2.0,
        "tls_ms": 3.5,
        "first_byte_ms": 40.001,
        "total_ms": 45.678,
    }
    assert second["remote_address"] == "203.0.113.9"
    assert second["request_headers"] == {"webhook-id": str(event.id), "authorization": "***"}
    assert shown["delivery"]["last_attempt"]["number"] == 2
    below = await api.get(f"{log.path}/deliveries/{delivery.id}")
    assert below.json() == shown


async def test_a_delivery_is_not_found_below_another_endpoint(api: Api, log: Log) -> None:
    other = await log_of(log.transaction)
    delivery = await log.delivery()

    answer = await api.get(f"{other.path}/deliveries/{delivery.id}")

    assert problem(answer) == (404, "delivery_not_found")


async def test_a_delivery_outlives_its_event(api: Api, log: Log) -> None:
    delivery = await log.delivery()
    async with log.transaction() as session:
        await session.execute(delete(EventRecord))

    shown = (await api.get(f"/deliveries/{delivery.id}")).json()

    assert shown["event"] is None
    assert shown["delivery"]["status"] == "delivered"


async def test_the_deliveries_of_an_event_are_listed_page_by_page(api: Api, log: Log) -> None:
    event = await log.event()
    # An event of the same millisecond, whose deliveries have ids in the same range.
    twin = an_event_row(
        log.tenant_id,
        id=EventId(UUID(int=event.id.int ^ 1)),
        at=event.created_at,
    )
    logs = [log, *[await log_of(log.transaction) for _ in range(4)]]
    wanted = [await each.delivery(event=event) for each in logs]
    await log.add(twin, *[a_delivery(twin, each.webhook_id) for each in logs])

    found = await all_pages(api, f"/events/{event.id}/deliveries", limit=2)

    assert sorted(found) == sorted(text_of(*wanted))


# A resend


async def owned(log: Log) -> None:
    """Let another process own the queue, with nothing to do."""
    async with log.transaction() as session:
        await session.execute(update(DeliveryQueue).values(due_at=None))


@pytest.mark.parametrize(
    "status", [DeliveryStatus.DELIVERED, DeliveryStatus.EXHAUSTED, DeliveryStatus.DISCARDED]
)
async def test_a_resent_delivery_is_pending_and_due(
    api: Api, log: Log, status: DeliveryStatus
) -> None:
    delivery = await log.delivery(status, attempts_made=10, ordered=True)
    await owned(log)

    answer = await api.ask("POST", f"/deliveries/{delivery.id}/resend")

    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    assert answer.json()["attempts_made"] == 10
    row = await log.row(delivery)
    assert (row.status, row.reason, row.settled_at) == (DeliveryStatus.PENDING, None, None)
    assert not row.ordered
    assert row.next_attempt_at is not None
    assert row.next_attempt_at <= datetime.now(UTC)
    due_at = (await log.queue()).due_at
    assert due_at is not None
    assert due_at <= datetime.now(UTC)


async def test_a_repeated_resend_changes_nothing(api: Api, log: Log) -> None:
    delivery = await log.delivery(DeliveryStatus.EXHAUSTED)

    answers = [
        (await api.ask("POST", f"/deliveries/{delivery.id}/resend")).json() for _ in range(3)
    ]

    assert answers[0] == answers[1] == answers[2]


async def test_a_delivery_with_a_thousand_attempts_is_not_sent_again(api: Api, log: Log) -> None:
    delivery = await log.delivery(DeliveryStatus.DELIVERED, attempts_made=ATTEMPTS_MAX)

    answer = await api.ask("POST", f"/deliveries/{delivery.id}/resend")

    assert problem(answer) == (409, "delivery_exhausted")


async def test_a_delivery_that_waits_for_a_retry_becomes_due(api: Api, log: Log) -> None:
    later = datetime.now(UTC) + timedelta(hours=5)
    delivery = await log.delivery(DeliveryStatus.PENDING, attempts_made=3, next_attempt_at=later)

    await api.ask("POST", f"/deliveries/{delivery.id}/resend")

    row = await log.row(delivery)
    assert row.next_attempt_at is not None
    assert row.next_attempt_at <= datetime.now(UTC)
    assert row.attempts_made == 3


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param({"deleted_at": func.now()}, (404, "webhook_not_found"), id="deleted"),
        pytest.param(
            {"disabled_at": func.now(), "disabled_reason": "gone"},
            (409, "webhook_disabled"),
            id="disabled",
        ),
    ],
)
async def test_nothing_is_resent_to_an_endpoint_that_is_off(
    api: Api, log: Log, columns: dict[str, Any], expected: tuple[int, str]
) -> None:
    delivery = await log.delivery()
    async with log.transaction() as session:
        await session.execute(update(Webhook).values(**columns))

    assert problem(await api.ask("POST", f"/deliveries/{delivery.id}/resend")) == expected
    assert problem(await api.ask("POST", f"{log.path}/ping")) == expected
    assert (await log.row(delivery)).status is DeliveryStatus.DELIVERED
    assert len(await log.rows()) == 1


async def test_a_delivery_whose_event_is_gone_is_not_resent(api: Api, log: Log) -> None:
    delivery = await log.delivery()
    async with log.transaction() as session:
        await session.execute(delete(EventRecord))

    answer = await api.ask("POST", f"/deliveries/{delivery.id}/resend")

    assert problem(answer) == (410, "event_expired")
    assert (await log.row(delivery)).status is DeliveryStatus.DELIVERED
