import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest
from sqlalchemy import text

from notifier import db
from notifier.broker import connect
from notifier.intake import NotifyConsumer
from schemas import topology
from schemas.events.envelope import encode
from schemas.settings import BrokerSettings, DatabaseSettings
from schemas.tables.inbox import InboxMessage
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import CutBroker, CutDatabase
from tests.integration.notifier.process import running
from tests.integration.notifier.scene import Scene, an_event, engine_of, eventually

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

NOTIFY_DLQ = topology.dead_letter_queue(topology.NOTIFY)


class ConsumerFor(Protocol):
    """Runs a consumer as its process does; through the ways given, or directly."""

    def __call__(
        self,
        *,
        through: BrokerSettings | None = None,
        recording_in: DatabaseSettings | None = None,
    ) -> AbstractAsyncContextManager[NotifyConsumer]: ...


@pytest.fixture
def a_consumer(database: DatabaseSettings, broker: BrokerSettings) -> ConsumerFor:
    @asynccontextmanager
    async def run(
        *,
        through: BrokerSettings | None = None,
        recording_in: DatabaseSettings | None = None,
    ) -> AsyncIterator[NotifyConsumer]:
        async with (
            engine_of(recording_in or database) as engine,
            await connect(through or broker, name="consumer under test") as connection,
        ):
            consumer = NotifyConsumer(
                connection=connection, transaction=engine.begin, wake=db.WakeUp()
            )
            async with running(consumer.run()):
                await eventually(consumer.is_consuming)
                yield consumer

    return run


async def test_every_endpoint_that_wants_the_event_gets_a_delivery(
    scene: Scene, events_bus: Bus, a_consumer: ConsumerFor
) -> None:
    tenant_id = await scene.add_tenant()
    upload_id = await scene.add_upload(tenant_id)
    another_upload_id = await scene.add_upload(tenant_id)
    wanted = {
        await scene.add_webhook(tenant_id),
        await scene.add_webhook(tenant_id, event_types=["upload.stored", "upload.cancelled"]),
        await scene.add_webhook(tenant_id, upload_id=upload_id),
    }
    await scene.add_webhook(tenant_id, event_types=["upload.stored"])
    await scene.add_webhook(tenant_id, upload_id=another_upload_id)
    await scene.add_webhook(await scene.add_tenant())
    await scene.delete_webhook(await scene.add_webhook(tenant_id))
    event = an_event(tenant_id=tenant_id, upload_id=upload_id)
    async with a_consumer():
        await events_bus.publish(event)
        deliveries = await eventually(scene.deliveries)
    assert {delivery.webhook_id for delivery in deliveries} == wanted
    for delivery in deliveries:
        assert delivery.body == encode(event)
        assert delivery.event_id == event.id
        assert delivery.event_type == "upload.cancelled"
        assert delivery.tenant_id == tenant_id
        assert delivery.status == "pending"
        assert delivery.next_attempt_at is not None
        assert delivery.attempts_made == 0


async def test_an_event_delivered_twice_by_the_broker_is_told_once(
    scene: Scene, events_bus: Bus, a_consumer: ConsumerFor
) -> None:
    tenant_id = await scene.add_tenant()
    for _ in range(2):
        await scene.add_webhook(tenant_id)
    event, last = an_event(tenant_id=tenant_id), an_event(tenant_id=tenant_id)
    async with a_consumer():
        for each in (event, event, event, last):
            await events_bus.publish(each)

        async def the_last_is_there() -> bool:
            return last.id in {delivery.event_id for delivery in await scene.deliveries()}

        await eventually(the_last_is_there)
    deliveries = await scene.deliveries()
    assert len(deliveries) == 4
    assert len({(delivery.event_id, delivery.webhook_id) for delivery in deliveries}) == 4
    assert await events_bus.depth(topology.NOTIFY) == 0


async def test_a_malformed_message_is_dead_lettered_and_good_ones_flow(
    scene: Scene, events_bus: Bus, a_consumer: ConsumerFor
) -> None:
    tenant_id = await scene.add_tenant()
    await scene.add_webhook(tenant_id)
    malformed = [b"", b"\xff\xfe", b"{}", b"[" * 100_000, encode(an_event())[:-1]]
    async with a_consumer():
        for body in malformed:
            await events_bus.publish_raw(body, routing_key="upload.cancelled")
            await events_bus.publish(an_event(tenant_id=tenant_id))
        dead = await events_bus.take_until(NOTIFY_DLQ, count=len(malformed))

        async def all_good_ones_are_there() -> bool:
            return len(await scene.deliveries()) == len(malformed)

        await eventually(all_good_ones_are_there)
    assert sorted(message.body for message in dead) == sorted(malformed)


async def test_a_dropped_connection_is_restored_with_its_consumer(
    scene: Scene, events_bus: Bus, a_consumer: ConsumerFor, cut: CutBroker
) -> None:
    tenant_id = await scene.add_tenant()
    await scene.add_webhook(tenant_id)
    events = [an_event(tenant_id=tenant_id) for _ in range(200)]
    async with a_consumer(through=cut.settings) as consumer:
        for number, event in enumerate(events):
            await events_bus.publish(event)
            if number % 50 == 25:
                await cut.way.drop()

        async def all_are_there() -> bool:
            return len(await scene.deliveries()) == len(events)

        await eventually(all_are_there)
        await eventually(consumer.is_consuming)
    assert await events_bus.depth(topology.NOTIFY) == 0
    assert await events_bus.depth(NOTIFY_DLQ) == 0


async def test_a_consumer_the_broker_cancelled_comes_back(
    scene: Scene, events_bus: Bus, a_consumer: ConsumerFor
) -> None:
    tenant_id = await scene.add_tenant()
    await scene.add_webhook(tenant_id)
    async with a_consumer() as consumer:
        await events_bus.delete(topology.NOTIFY)

        async def it_noticed() -> bool:
            return not await consumer.is_consuming()

        await eventually(it_noticed)
        await eventually(consumer.is_consuming)
        await events_bus.publish(an_event(tenant_id=tenant_id))
        await eventually(scene.deliveries)


async def test_nothing_is_consumed_while_the_database_is_away_and_all_of_it_later(
    scene: Scene, events_bus: Bus, a_consumer: ConsumerFor, cut_database: CutDatabase
) -> None:
    tenant_id = await scene.add_tenant()
    await scene.add_webhook(tenant_id)
    outages = 3
    async with a_consumer(recording_in=cut_database.settings) as consumer:
        for outage in range(1, outages + 1):
            await cut_database.way.refuse()
            for _ in range(30):
                await events_bus.publish(an_event(tenant_id=tenant_id))

            async def it_waits() -> bool:
                return not await consumer.is_consuming()

            async def they_are_in_the_queue() -> bool:
                return await events_bus.depth(topology.NOTIFY) == 30

            await eventually(it_waits)
            await eventually(they_are_in_the_queue)
            await cut_database.way.accept()

            async def all_are_there(expected: int = 30 * outage) -> bool:
                return len(await scene.deliveries()) == expected

            await eventually(all_are_there)
            await eventually(consumer.is_consuming)
    assert await events_bus.depth(topology.NOTIFY) == 0
    assert await events_bus.depth(NOTIFY_DLQ) == 0


async def test_a_database_that_answers_but_takes_no_writes_costs_no_event_either(
    scene: Scene, events_bus: Bus, a_consumer: ConsumerFor
) -> None:
    tenant_id = await scene.add_tenant()
    await scene.add_webhook(tenant_id)
    async with scene.transaction() as session:
        await session.execute(text("ALTER TABLE deliveries RENAME TO deliveries_elsewhere"))
    async with a_consumer():
        for _ in range(20):
            await events_bus.publish(an_event(tenant_id=tenant_id))
        # Longer than the broker would need to send each round ten times and give it up.
        await asyncio.sleep(2)
        async with scene.transaction() as session:
            await session.execute(text("ALTER TABLE deliveries_elsewhere RENAME TO deliveries"))

        async def all_are_there() -> bool:
            return len(await scene.deliveries()) == 20

        await eventually(all_are_there)
    assert await events_bus.depth(NOTIFY_DLQ) == 0


async def test_an_event_nobody_subscribed_to_is_remembered_all_the_same(
    scene: Scene, events_bus: Bus, a_consumer: ConsumerFor
) -> None:
    event = an_event()
    async with a_consumer():
        await events_bus.publish(event)

        async def is_on_record() -> bool:
            async with scene.transaction() as session:
                return await session.get(InboxMessage, ("notifier", event.id)) is not None

        await eventually(is_on_record)
    assert await scene.deliveries() == []
    assert await events_bus.depth(topology.NOTIFY) == 0
