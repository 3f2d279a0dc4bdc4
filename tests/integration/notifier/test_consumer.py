from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import msgspec
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from notifier import db
from notifier.broker import connect
from notifier.delivery.store import open_store
from notifier.delivery.work import ReceivedEvent
from notifier.intake import NotifyConsumer
from schemas import queues, topology
from schemas.events.envelope import encode
from schemas.settings import BrokerSettings, DatabaseSettings
from schemas.tables.inbox import InboxMessage
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import ProxiedBroker, ProxiedDatabase
from tests.integration.notifier.process import running
from tests.integration.notifier.rows import Rows, an_event, engine_of, eventually

pytestmark = pytest.mark.anyio

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOTIFY_DLQ = topology.dead_letter_queue(queues.NOTIFY)


class RunConsumer(Protocol):
    """Runs a consumer as its process does, by default without a proxy."""

    def __call__(
        self,
        *,
        through: BrokerSettings | None = None,
        recording_in: DatabaseSettings | None = None,
        after_recording: Callable[[int], Awaitable[None]] | None = None,
    ) -> AbstractAsyncContextManager[NotifyConsumer]:
        """Run a consumer.

        Args:
            through: the broker.
            recording_in: the database.
            after_recording: called after each group is recorded, before its acknowledgement, with the
                number of repeated events.
        """
        ...


@pytest.fixture
def run_consumer(database: DatabaseSettings, broker: BrokerSettings) -> RunConsumer:
    @asynccontextmanager
    async def run(
        *,
        through: BrokerSettings | None = None,
        recording_in: DatabaseSettings | None = None,
        after_recording: Callable[[int], Awaitable[None]] | None = None,
    ) -> AsyncIterator[NotifyConsumer]:
        async with (
            engine_of(recording_in or database) as engine,
            await connect(through or broker, name="consumer under test") as connection,
            open_store(
                connect=db.connector(recording_in or database, name="consumer under test"),
                transaction=engine.begin,
            ) as store,
        ):
            assert await store.keep_alive()

            async def record(events: Sequence[ReceivedEvent]) -> int:
                repeated = (await store.record_events(events)).repeated
                if after_recording is not None:
                    await after_recording(repeated)
                return repeated

            consumer = NotifyConsumer(connection=connection, record=record)
            async with running(consumer.run()):
                await eventually(consumer.is_consuming)
                yield consumer

    return run


async def test_every_subscribed_endpoint_gets_a_delivery(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    upload_id = await rows.add_upload(tenant_id)
    another_upload_id = await rows.add_upload(tenant_id)
    wanted = {
        await rows.add_webhook(tenant_id),
        await rows.add_webhook(tenant_id, event_types=["upload.stored", "upload.cancelled"]),
        await rows.add_webhook(tenant_id, upload_id=upload_id),
    }
    await rows.add_webhook(tenant_id, event_types=["upload.stored"])
    await rows.add_webhook(tenant_id, upload_id=another_upload_id)
    await rows.add_webhook(await rows.add_tenant())
    await rows.delete_webhook(await rows.add_webhook(tenant_id))
    event = an_event(tenant_id=tenant_id, upload_id=upload_id)
    async with run_consumer():
        await events_bus.publish(event)
        deliveries = await eventually(rows.deliveries)
    assert {delivery.webhook_id for delivery in deliveries} == wanted
    for delivery in deliveries:
        assert delivery.event_id == event.id
        assert delivery.event_type == "upload.cancelled"
        assert delivery.tenant_id == tenant_id
        assert delivery.status == "pending"
        assert delivery.next_attempt_at is not None
        assert delivery.attempts_made == 0


async def test_a_repeated_message_adds_no_delivery(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    for _ in range(2):
        await rows.add_webhook(tenant_id)
    event, last = an_event(tenant_id=tenant_id), an_event(tenant_id=tenant_id)
    async with run_consumer():
        for each in (event, event, event, last):
            await events_bus.publish(each)

        async def last_is_recorded() -> bool:
            return last.id in {delivery.event_id for delivery in await rows.deliveries()}

        await eventually(last_is_recorded)
    deliveries = await rows.deliveries()
    assert len(deliveries) == 4
    assert len({(delivery.event_id, delivery.webhook_id) for delivery in deliveries}) == 4
    assert await events_bus.depth(queues.NOTIFY) == 0


async def test_a_malformed_message_is_dead_lettered_and_valid_ones_are_recorded(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    malformed = [b"", b"\xff\xfe", b"{}", b"[" * 100_000, encode(an_event())[:-1]]
    async with run_consumer():
        for body in malformed:
            await events_bus.publish_raw(body, routing_key="upload.cancelled")
            await events_bus.publish(an_event(tenant_id=tenant_id))
        dead = await events_bus.take_until(NOTIFY_DLQ, count=len(malformed))

        async def valid_ones_are_recorded() -> bool:
            return len(await rows.deliveries()) == len(malformed)

        await eventually(valid_ones_are_recorded)
    assert sorted(message.body for message in dead) == sorted(malformed)


async def test_the_consumer_continues_after_a_dropped_connection(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer, proxied_broker: ProxiedBroker
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    events = [an_event(tenant_id=tenant_id) for _ in range(200)]
    async with run_consumer(through=proxied_broker.settings) as consumer:
        for number, event in enumerate(events):
            await events_bus.publish(event)
            if number % 50 == 25:
                await proxied_broker.proxy.drop()

        async def all_are_recorded() -> bool:
            return len(await rows.deliveries()) == len(events)

        await eventually(all_are_recorded)
        await eventually(consumer.is_consuming)
    assert await events_bus.depth(queues.NOTIFY) == 0
    assert await events_bus.depth(NOTIFY_DLQ) == 0


async def test_the_consumer_restarts_after_the_broker_cancels_it(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    async with run_consumer() as consumer:
        await events_bus.delete(queues.NOTIFY)

        async def has_stopped() -> bool:
            return not await consumer.is_consuming()

        await eventually(has_stopped)
        await eventually(consumer.is_consuming)
        await events_bus.publish(an_event(tenant_id=tenant_id))
        await eventually(rows.deliveries)


async def test_nothing_is_consumed_during_an_outage_of_the_database(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer, proxied_database: ProxiedDatabase
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    outages = 3
    async with run_consumer(recording_in=proxied_database.settings) as consumer:
        for outage in range(1, outages + 1):
            await proxied_database.proxy.refuse()
            for _ in range(30):
                await events_bus.publish(an_event(tenant_id=tenant_id))

            async def has_stopped() -> bool:
                return not await consumer.is_consuming()

            async def all_are_queued() -> bool:
                return await events_bus.depth(queues.NOTIFY) == 30

            await eventually(has_stopped)
            await eventually(all_are_queued)
            await proxied_database.proxy.accept()

            async def all_are_recorded(expected: int = 30 * outage) -> bool:
                return len(await rows.deliveries()) == expected

            await eventually(all_are_recorded)
            await eventually(consumer.is_consuming)
    assert await events_bus.depth(queues.NOTIFY) == 0
    assert await events_bus.depth(NOTIFY_DLQ) == 0


async def test_a_database_that_refuses_writes_loses_no_event(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    async with rows.transaction() as session:
        await session.execute(text("ALTER TABLE deliveries RENAME TO deliveries_elsewhere"))
    async with run_consumer():
        with capture_logs() as lines:
            for _ in range(20):
                await events_bus.publish(an_event(tenant_id=tenant_id))

            async def has_tried_often() -> bool:
                # A consumer that requeues its messages makes each first attempt again.
                return any(line.get("tries") == 4 for line in lines)

            await eventually(has_tried_often)
        async with rows.transaction() as session:
            await session.execute(text("ALTER TABLE deliveries_elsewhere RENAME TO deliveries"))

        async def all_are_recorded() -> bool:
            return len(await rows.deliveries()) == 20

        await eventually(all_are_recorded)
    assert await events_bus.depth(NOTIFY_DLQ) == 0


async def test_an_event_of_another_publisher_is_stored_with_its_bytes(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    event = an_event(tenant_id=tenant_id)
    async with run_consumer():
        await events_bus.publish(event)
        (delivery,) = await eventually(rows.deliveries)
    (stored,) = await rows.events()
    assert stored.id == delivery.event_id == event.id
    assert stored.body == encode(event)
    assert (stored.tenant_id, stored.type, stored.subject) == (
        tenant_id,
        "upload.cancelled",
        event.subject,
    )
    assert stored.upload_id == event.upload_id
    assert stored.job_id is None


async def test_an_event_that_is_stored_already_stays_unchanged(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    event = an_event(tenant_id=tenant_id)
    await rows.add_events(event, traceparent=TRACEPARENT)
    async with run_consumer():
        await events_bus.publish_raw(encode(event) + b"\n", routing_key=event.type)
        await eventually(rows.deliveries)
    (stored,) = await rows.events()
    assert (stored.body, stored.traceparent) == (encode(event), TRACEPARENT)


async def test_a_replay_after_the_retention_adds_neither_event_nor_delivery(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    replayed, last = an_event(tenant_id=tenant_id), an_event(tenant_id=tenant_id)
    await rows.record(replayed)
    await rows.delete_events()
    async with run_consumer():
        await events_bus.publish(replayed)
        await events_bus.publish(last)

        async def last_is_stored() -> bool:
            return last.id in {event.id for event in await rows.events()}

        await eventually(last_is_stored)
    assert [event.id for event in await rows.events()] == [last.id]
    assert len(await rows.deliveries()) == 2


async def test_only_the_event_that_cannot_be_recorded_is_dead_lettered(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    # PostgreSQL has no text with this character.
    poison = msgspec.structs.replace(an_event(tenant_id=tenant_id), subject="a\x00b")
    events = [an_event(tenant_id=tenant_id) for _ in range(40)]
    for event in (*events[:20], poison, *events[20:]):
        await events_bus.publish(event)
    async with run_consumer():
        (dead,) = await events_bus.take_until(NOTIFY_DLQ, count=1)

        async def the_others_are_recorded() -> bool:
            return len(await rows.deliveries()) == len(events)

        await eventually(the_others_are_recorded)
    assert dead.body == encode(poison)
    assert await events_bus.depth(queues.NOTIFY) == 0


async def test_a_group_that_was_recorded_but_not_acknowledged_adds_no_second_delivery(
    rows: Rows,
    events_bus: Bus,
    run_consumer: RunConsumer,
    proxied_broker: ProxiedBroker,
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    events = [an_event(tenant_id=tenant_id) for _ in range(30)]
    repeated = 0

    async def after_recording(found: int) -> None:
        nonlocal repeated
        if not repeated and not found:
            await proxied_broker.proxy.drop()
        repeated += found

    async with run_consumer(through=proxied_broker.settings, after_recording=after_recording):
        for event in events:
            await events_bus.publish(event)

        async def a_group_is_repeated() -> bool:
            return repeated > 0

        await eventually(a_group_is_repeated)

        async def all_are_recorded() -> bool:
            return len(await rows.deliveries()) == len(events)

        await eventually(all_are_recorded)

        async def all_are_acknowledged() -> bool:
            return await events_bus.depth(queues.NOTIFY) == 0

        await eventually(all_are_acknowledged)
    assert (await rows.ledger(tenant_id)).difference == 0


async def test_an_event_without_subscribers_is_recorded(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    event = an_event()
    async with run_consumer():
        await events_bus.publish(event)

        async def is_on_record() -> bool:
            async with rows.transaction() as session:
                return await session.get(InboxMessage, ("notifier", event.id)) is not None

        await eventually(is_on_record)
    assert await rows.deliveries() == []
    assert await events_bus.depth(queues.NOTIFY) == 0
