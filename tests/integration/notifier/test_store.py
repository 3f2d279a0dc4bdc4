"""What the store records, reads and settles, with one process."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from notifier.delivery.settlement import Settlement
from notifier.delivery.store import DatabaseStore
from notifier.delivery.work import DueDelivery, EndpointState, QueueState, ReceivedEvent
from schemas.events.endpoints import EndpointDisabled
from schemas.events.envelope import Envelope, Event, encode
from schemas.events.examples import example_of
from schemas.ids import EventId, JobId, TenantId, UploadId, WebhookId, uuid7
from schemas.lifecycle import BatchEvents, DeliveryStatus, DisabledReason, DiscardReason
from schemas.settings import DatabaseSettings
from tests.integration.notifier.rows import Rows, an_event, engine_of, received
from tests.integration.notifier.stores import failed, finished, ids_of, process

pytestmark = pytest.mark.anyio

SOON = timedelta(minutes=5)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def engine(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    async with engine_of(database) as engine:
        yield engine


@pytest.fixture
async def store(database: DatabaseSettings, engine: AsyncEngine) -> AsyncIterator[DatabaseStore]:
    async with process(database, engine) as store:
        yield store


async def load_all(store: DatabaseStore, *webhook_ids: WebhookId) -> Sequence[DueDelivery]:
    return (await store.load(dict.fromkeys(webhook_ids, ()), limit=1000)).due


def event_of(
    data: Event, *, tenant_id: TenantId, upload_id: UploadId, job_id: JobId, at: datetime
) -> Envelope:
    """Return an event of an upload and its job, of a given time."""
    return Envelope(
        id=EventId(uuid7(at)),
        source="/tests",
        subject=str(upload_id),
        time=at,
        tenantid=tenant_id,
        data=msgspec.structs.replace(data, upload_id=upload_id, job_id=job_id),
    )


def events_of_upload(
    tenant_id: TenantId, *, since: datetime | None = None
) -> tuple[Envelope, Envelope]:
    """Return the events `upload.stored` and `document.ingested` of a new upload."""
    upload_id, job_id = UploadId(uuid4()), JobId(uuid4())
    since = since or datetime.now(UTC)
    stored, ingested = (
        event_of(
            example_of(name),
            tenant_id=tenant_id,
            upload_id=upload_id,
            job_id=job_id,
            at=since + number * timedelta(milliseconds=2),
        )
        for number, name in enumerate(("upload.stored", "document.ingested"))
    )
    return stored, ingested


async def test_each_subscribed_endpoint_gets_a_delivery(rows: Rows, store: DatabaseStore) -> None:
    tenant_id = await rows.add_tenant()
    upload_id = await rows.add_upload(tenant_id, metadata={"team": "blue", "year": "2026"})
    another_upload_id = await rows.add_upload(tenant_id)
    wanted = {
        await rows.add_webhook(tenant_id),
        await rows.add_webhook(tenant_id, event_types=["document.ingested", "upload.cancelled"]),
        await rows.add_webhook(tenant_id, event_types=["upload.*"]),
        await rows.add_webhook(tenant_id, event_types=["*"]),
        await rows.add_webhook(tenant_id, upload_id=upload_id),
        await rows.add_webhook(tenant_id, metadata_filter={"team": "blue"}),
    }
    for options in (
        {"event_types": ["upload.stored"]},
        {"event_types": ["document.*", "up.*"]},
        {"upload_id": another_upload_id},
        {"metadata_filter": {"team": "red"}},
        {"metadata_filter": {"team": "blue", "year": "2025"}},
    ):
        await rows.add_webhook(tenant_id, **options)
    await rows.add_webhook(await rows.add_tenant())
    await rows.delete_webhook(await rows.add_webhook(tenant_id))
    event = an_event(tenant_id=tenant_id, upload_id=upload_id)

    recorded = await store.record_events([received(event, traceparent=TRACEPARENT)])

    assert {delivery.webhook_id for delivery in recorded.due} == wanted
    assert {state.webhook_id for state in recorded.taken} == wanted
    assert {
        (each.event_id, each.event_type, each.upload_id, each.attempts_made, each.traceparent)
        for each in recorded.due
    } == {(event.id, event.type, upload_id, 0, TRACEPARENT)}
    assert {each.body for each in recorded.due} == {encode(event)}
    found = await rows.deliveries()
    assert {delivery.id for delivery in found} == set(ids_of(recorded.due))
    assert (recorded.repeated, recorded.unread) == (0, set())


@pytest.mark.parametrize("events", BatchEvents)
async def test_endpoints_get_the_events_of_the_documents_of_a_batch_as_chosen(
    rows: Rows, store: DatabaseStore, events: BatchEvents
) -> None:
    tenant_id = await rows.add_tenant()
    upload_id = await rows.add_upload(tenant_id)
    of_batch, of_line = await rows.add_batch(tenant_id, events=events)
    await rows.add_webhook(tenant_id)
    await rows.add_webhook(tenant_id, upload_id=upload_id)
    at = datetime.now(UTC)
    line = event_of(
        example_of("upload.stored"), tenant_id=tenant_id, upload_id=upload_id, job_id=of_line, at=at
    )
    completed = Envelope(
        id=EventId(uuid7(at)),
        source="/tests",
        subject="batch",
        time=at,
        tenantid=tenant_id,
        data=msgspec.structs.replace(example_of("batch.completed"), job_id=of_batch),
    )

    recorded = await store.record_events([received(line), received(completed)])

    delivered = [each.event_id for each in recorded.due]
    assert delivered.count(completed.id) == 1
    assert delivered.count(line.id) == (2 if events is BatchEvents.EACH else 0)


async def test_the_metadata_of_another_tenants_upload_are_not_matched(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id, another = await rows.add_tenant(), await rows.add_tenant()
    upload_id = await rows.add_upload(another, metadata={"team": "blue"})
    await rows.add_webhook(tenant_id, metadata_filter={"team": "blue"})
    event = an_event(tenant_id=tenant_id, upload_id=upload_id)
    assert not (await store.record_events([received(event)])).due


async def test_an_event_of_a_deleted_tenant_adds_nothing(rows: Rows, store: DatabaseStore) -> None:
    tenant_id, other = await rows.add_tenant(), await rows.add_tenant()
    for each in (tenant_id, other):
        await rows.add_webhook(each)
    await rows.add_deletion(tenant_id)
    late, kept = an_event(tenant_id=tenant_id), an_event(tenant_id=other)

    recorded = await store.record_events([received(late), received(kept)])

    assert [delivery.event_id for delivery in recorded.due] == [kept.id]
    assert [delivery.event_id for delivery in await rows.deliveries()] == [kept.id]
    assert await rows.stored_events() == [kept.id]


async def test_a_repeated_group_adds_no_delivery(rows: Rows, store: DatabaseStore) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    events = [received(an_event(tenant_id=tenant_id)) for _ in range(5)]
    first = await store.record_events([*events, events[0]])
    assert (len(first.due), first.repeated) == (5, 1)
    again = await store.record_events([*events, received(an_event(tenant_id=tenant_id))])
    assert (len(again.due), again.repeated) == (1, 5)
    # The answer to the first recording may have been lost, so its deliveries are to be loaded.
    assert again.unread == {webhook_id}
    assert len(await rows.deliveries()) == 6
    ledger = await rows.ledger(tenant_id)
    assert (ledger.events, ledger.published, ledger.pending, ledger.difference) == (6, 6, 6, 0)


async def test_deliveries_of_a_disabled_endpoint_are_discarded_with_the_reason(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    await rows.change_webhook(webhook_id, disabled_at=datetime.now(UTC))
    recorded = await store.record_events([received(an_event(tenant_id=tenant_id))])
    assert (recorded.due, recorded.taken) == ([], [])
    (delivery,) = await rows.deliveries()
    assert (delivery.status, delivery.reason) == ("discarded", DiscardReason.ENDPOINT_DISABLED)
    assert delivery.settled_at is not None
    ledger = await rows.ledger(tenant_id)
    assert (ledger.published, ledger.discarded, ledger.difference) == (1, 1, 0)


async def test_deliveries_of_a_paused_endpoint_wait_until_it_is_active(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    await rows.execute("UPDATE webhooks SET paused_at = now()")
    recorded = await store.record_events([received(an_event(tenant_id=tenant_id))])
    assert (recorded.due, recorded.taken) == ([], [])
    queue = await rows.queue(webhook_id)
    assert (queue.owner, queue.due_at) == (None, None)

    await rows.change_webhook(webhook_id, paused_at=None)

    (taken,) = await store.take(limit=10)
    assert taken.webhook_id == webhook_id
    assert len(await load_all(store, webhook_id)) == 1


async def test_a_paused_endpoint_has_no_due_deliveries(rows: Rows, store: DatabaseStore) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    await store.record_events([received(an_event(tenant_id=tenant_id))])
    await rows.execute("UPDATE webhooks SET paused_at = now()")
    assert await load_all(store, webhook_id) == []
    assert await store.release([webhook_id]) == {webhook_id}
    queue = await rows.queue(webhook_id)
    assert (queue.owner, queue.due_at) == (None, None)


async def test_load_returns_first_attempts_before_retries_and_what_is_not_known(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    events = [received(an_event(tenant_id=tenant_id)) for _ in range(7)]
    due = (await store.record_events(events)).due
    now = datetime.now(UTC)
    retried, refused, later = due[:3]
    assert (
        len(
            await store.record(
                [
                    failed(retried, retry=now - timedelta(seconds=1)),
                    failed(refused, retry=now - timedelta(seconds=2), status_code=404),
                    failed(later, retry=now + SOON),
                ]
            )
        )
        == 3
    )

    loaded = await store.load({webhook_id: [due[3].delivery_id]}, limit=4)

    assert set(ids_of(loaded.due[:3])) == set(ids_of(due[4:]))
    assert [each.delivery_id for each in loaded.due[3:]] == [refused.delivery_id]
    assert [each.only_refused for each in loaded.due] == [True, True, True, True]
    assert loaded.more == {webhook_id}
    assert loaded.next_due == {webhook_id: now + SOON}
    assert loaded.lost == set()

    loaded = await store.load({webhook_id: ids_of(due[3:])}, limit=4)
    assert ids_of(loaded.due) == [refused.delivery_id, retried.delivery_id]
    assert [each.attempts_made for each in loaded.due] == [1, 1]
    assert [each.only_refused for each in loaded.due] == [True, False]
    assert loaded.more == set()


async def test_load_reads_the_bytes_of_the_event_of_the_tenant_alone(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id, another = await rows.add_tenant(), await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    events = [an_event(tenant_id=tenant_id) for _ in range(3)]
    await store.record_events([received(event, traceparent=TRACEPARENT) for event in events])
    foreign, missing, kept = events
    await rows.execute(
        "UPDATE events SET tenant_id = :another WHERE id = :id", another=another, id=foreign.id
    )
    await rows.execute("DELETE FROM events WHERE id = :id", id=missing.id)
    found = {each.event_id: each for each in await load_all(store, webhook_id)}
    assert found[kept.id].body == encode(kept)
    assert found[kept.id].traceparent == TRACEPARENT
    assert found[foreign.id].body is None
    assert found[missing.id].body is None


async def test_an_attempt_is_recorded_with_its_result(rows: Rows, store: DatabaseStore) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    due = (
        await store.record_events([received(an_event(tenant_id=tenant_id)) for _ in range(3)])
    ).due
    delivered, retried, exhausted = due
    retry = datetime.now(UTC) + SOON
    attempts = [
        finished(delivered),
        failed(retried, retry=retry),
        finished(exhausted, settlement=Settlement(status=DeliveryStatus.EXHAUSTED)),
    ]
    assert await store.record(attempts) == set(ids_of(due))
    found = {delivery.id: delivery for delivery in await rows.deliveries()}
    assert {
        each.id: (each.status, each.attempts_made, each.next_attempt_at, each.settled_at is None)
        for each in found.values()
    } == {
        delivered.delivery_id: ("delivered", 1, None, False),
        retried.delivery_id: ("pending", 1, retry, True),
        exhausted.delivery_id: ("exhausted", 1, None, False),
    }
    logged = {attempt.delivery_id: attempt for attempt in await rows.attempts()}
    attempt = logged[retried.delivery_id]
    assert (attempt.number, attempt.outcome, attempt.status_code) == (1, "rejected", 500)
    assert (attempt.duration_us, attempt.dns_us) == (20_000, None)
    assert attempt.remote_address == "192.0.2.1"
    assert attempt.request_headers == attempts[1].request_headers
    ledger = await rows.ledger(tenant_id)
    assert (ledger.delivered, ledger.pending, ledger.exhausted) == (1, 1, 1)
    assert ledger.difference == 0


async def test_a_delivery_that_is_resent_without_end_is_recorded(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    await store.record_events([received(an_event(tenant_id=tenant_id))])
    await rows.execute("UPDATE deliveries SET attempts_made = 32767")
    (due,) = await load_all(store, webhook_id)

    assert await store.record([finished(due)]) == {due.delivery_id}

    (attempt,) = await rows.attempts()
    assert attempt.number == 32_768


async def test_the_options_of_endpoints_are_read(rows: Rows, store: DatabaseStore) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id, ordered=True, rate=2.5, concurrency=3)
    await rows.add_secret(webhook_id, "whsec_" + "A" * 32, others_expire_in=timedelta(hours=1))
    found = (await store.endpoints([webhook_id]))[webhook_id]
    assert (found.tenant_id, found.state) == (tenant_id, EndpointState.ACTIVE)
    assert (found.ordered, found.rate, found.concurrency) == (True, 2.5, 3)
    newest, oldest = found.secrets
    assert newest.expires_at is None
    assert oldest.expires_at is not None
    await rows.execute("UPDATE webhook_secrets SET expires_at = now() WHERE expires_at > now()")
    changed = (await store.endpoints([webhook_id]))[webhook_id]
    assert changed.secrets == (newest,)
    assert changed.version > found.version
    await rows.delete_webhook(webhook_id)
    assert (await store.endpoints([webhook_id]))[webhook_id].state is EndpointState.DELETED


async def test_the_state_of_a_queue_is_kept_for_its_next_owner(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    await store.record_events([received(an_event(tenant_id=tenant_id))])
    now = datetime.now(UTC)
    state = QueueState(
        webhook_id=webhook_id,
        tenant_id=tenant_id,
        blocked_until=now + SOON,
        throttles=2,
        failing_since=now - SOON,
        failures=7,
    )
    await store.save([state])
    assert await store.release([webhook_id]) == {webhook_id}
    assert (await rows.queue(webhook_id)).due_at == now + SOON
    await rows.execute("UPDATE delivery_queues SET due_at = now()")
    assert await store.take(limit=1) == [state]


async def test_a_disabled_endpoint_is_announced_once_to_the_others(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id, other = [await rows.add_webhook(tenant_id) for _ in range(2)]
    await store.record_events([received(an_event(tenant_id=tenant_id)) for _ in range(3)])
    for _ in range(2):
        await store.disable(webhook_id, reason=DisabledReason.FAILING)
    events = {event.id: event for event in await rows.events()}
    (message,) = await rows.outbox()
    event = events[message.event_id]
    announced = msgspec.json.decode(event.body)
    assert (event.type, announced["data"]["reason"]) == (EndpointDisabled.TYPE, "failing")
    assert announced["data"]["deliveries_kept"] == 3
    webhook = await rows.webhook(webhook_id)
    assert webhook.disabled_reason == DisabledReason.FAILING

    envelope = Envelope(
        id=event.id,
        source="/waybill/notifier",
        subject=str(webhook_id),
        time=datetime.now(UTC),
        tenantid=tenant_id,
        data=msgspec.convert(announced["data"], EndpointDisabled),
    )
    recorded = await store.record_events(
        [ReceivedEvent(envelope=envelope, body=event.body, traceparent=None)]
    )
    assert [delivery.webhook_id for delivery in recorded.due] == [other]


async def test_pending_deliveries_of_an_ended_endpoint_are_discarded_in_batches(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id, other = [await rows.add_webhook(tenant_id) for _ in range(2)]
    recorded = await store.record_events(
        [received(an_event(tenant_id=tenant_id)) for _ in range(50)]
    )
    under_way = next(each for each in recorded.due if each.webhook_id == webhook_id)
    await rows.delete_webhook(webhook_id)

    discarded: list[int] = []
    while not discarded or discarded[-1]:
        discarded.append(
            await store.discard(
                webhook_id,
                reason=DiscardReason.ENDPOINT_DELETED,
                keep=[under_way.delivery_id],
                limit=20,
            )
        )

    assert discarded == [20, 20, 9, 0]
    found = [each for each in await rows.deliveries() if each.webhook_id == webhook_id]
    assert {each.reason for each in found if each.status == "discarded"} == {"endpoint_deleted"}
    assert [each.id for each in found if each.status == "pending"] == [under_way.delivery_id]
    assert all(
        each.status == "pending" for each in await rows.deliveries() if each.webhook_id == other
    )
    assert (await rows.ledger(tenant_id)).difference == 0


async def test_an_ordered_delivery_waits_for_the_ones_before_it(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id, ordered=True)
    first, second = events_of_upload(tenant_id)
    recorded = await store.record_events([received(first), received(second)])
    assert recorded.due == []
    assert recorded.unread == {webhook_id}
    (head,) = await load_all(store, webhook_id)
    assert head.event_id == first.id
    retry = datetime.now(UTC) + SOON
    await store.record([failed(head, retry=retry)])
    # The head is not due, and what is behind it is looked at again when the head is.
    await rows.execute("UPDATE deliveries SET next_attempt_at = now() WHERE attempts_made = 0")
    loaded = await store.load({webhook_id: ()}, limit=10)
    assert (loaded.due, loaded.next_due) == ([], {webhook_id: retry})
    assert {delivery.next_attempt_at for delivery in await rows.deliveries()} == {retry}

    await rows.execute("UPDATE deliveries SET next_attempt_at = now() WHERE attempts_made = 1")
    (head,) = await load_all(store, webhook_id)
    assert (head.event_id, head.attempts_made) == (first.id, 1)
    await store.record([finished(head)])
    (follower,) = await load_all(store, webhook_id)
    assert follower.event_id == second.id


async def test_an_ordered_delivery_waits_for_an_earlier_event_that_has_not_arrived(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id, ordered=True)
    deaf = await rows.add_webhook(tenant_id, ordered=True, event_types=["document.ingested"])
    first, second = events_of_upload(tenant_id)
    await rows.add_events(first, second)
    await store.record_events([received(second)])
    loaded = await store.load({webhook_id: (), deaf: ()}, limit=10)
    # The other endpoint does not subscribe to the event that is missing.
    assert [each.webhook_id for each in loaded.due] == [deaf]
    assert webhook_id in loaded.next_due
    await store.record_events([received(first)])
    (head,) = await load_all(store, webhook_id)
    assert head.event_id == first.id
    await store.record([finished(head)])
    (follower,) = await load_all(store, webhook_id)
    assert follower.event_id == second.id


async def test_an_event_that_is_lost_does_not_stop_the_later_ones(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id, ordered=True)
    first, second = events_of_upload(tenant_id)
    await rows.add_events(first, second)
    await rows.execute("UPDATE events SET created_at = now() - interval '2 minutes'")
    await store.record_events([received(second)])
    (due,) = await load_all(store, webhook_id)
    assert due.event_id == second.id


async def test_no_pair_is_reversed_whatever_the_order_of_arrival(
    rows: Rows, store: DatabaseStore
) -> None:
    random = Random(1)
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id, ordered=True)
    events = [event for _ in range(60) for event in events_of_upload(tenant_id)]
    await rows.add_events(*events)
    random.shuffle(events)
    attempted: list[DueDelivery] = []
    delivered = 0
    for start in range(0, 20 * len(events), 10):
        if group := events[start : start + 10]:
            await store.record_events([received(event) for event in group])
        # What waits for an event that has not arrived is looked at again after a second.
        await rows.execute(
            "UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL"
        )
        due = (await store.load({webhook_id: ()}, limit=len(events))).due
        attempted += due
        outcomes = [
            failed(each, retry=datetime.now(UTC))
            if each.attempts_made == 0 and random.random() < 0.3
            else finished(each)
            for each in due
        ]
        assert len(await store.record(outcomes)) == len(due)
        delivered += sum(each.settlement.status is DeliveryStatus.DELIVERED for each in outcomes)
        if delivered == len(events):
            break
    assert delivered == len(events) == 120
    last: dict[UploadId | None, EventId] = {}
    for each in attempted:
        assert last.get(each.upload_id, each.event_id) <= each.event_id
        last[each.upload_id] = each.event_id
    assert (await rows.ledger(tenant_id)).difference == 0
