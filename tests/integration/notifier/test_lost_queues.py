"""Queues that are deleted under the running notifier, one by one or with the whole broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias
from uuid import uuid4

import pytest
from yarl import URL

from dev.stack.stack import Stack
from notifier.intake import PREFETCH
from schemas import queues, topology
from schemas.events.documents import DocumentFailed
from schemas.ids import DocumentId, JobId, TenantId, UploadId
from schemas.settings import BrokerSettings
from tests.fakes.receiver import Receiver
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import Start
from tests.integration.notifier.rows import Rows, an_event, eventually

pytestmark = pytest.mark.anyio

SOON = timedelta(seconds=40)
"""Longer than the consumer takes to notice a lost subscription, at most two checks."""

LoseData: TypeAlias = Callable[[], Awaitable[None]]
"""Replaces the virtual host by an empty one, which also drops its connections."""


@dataclass(frozen=True)
class Subscriber:
    """A tenant with a webhook, and the receiver of the webhook."""

    tenant_id: TenantId
    receiver: Receiver

    async def has_received(self, count: int) -> None:
        await asyncio.to_thread(self.receiver.wait_for, count, timeout=SOON)


@pytest.fixture
async def subscriber(rows: Rows) -> AsyncIterator[Subscriber]:
    tenant_id = await rows.add_tenant()
    with Receiver() as receiver:
        await rows.add_webhook(tenant_id, url=receiver.url)
        yield Subscriber(tenant_id, receiver)


async def test_the_deliverer_declares_a_deleted_queue_and_consumes_again(
    events_bus: Bus, start: Start, subscriber: Subscriber
) -> None:
    deliver = await start("deliver")
    await deliver.until_alive()
    for number in range(1, 4):
        await events_bus.delete(queues.NOTIFY)
        await eventually(lambda: events_bus.consumers(queues.NOTIFY))
        await events_bus.publish(an_event(tenant_id=subscriber.tenant_id))
        await subscriber.has_received(number)
    assert deliver.is_running


async def test_no_event_is_lost_after_a_queue_was_replaced_at_once(
    events_bus: Bus, start: Start, subscriber: Subscriber
) -> None:
    deliver = await start("deliver")
    await deliver.until_alive()
    await events_bus.delete(queues.NOTIFY)
    await events_bus.declare_topology()
    # The broker may count as many as the prefetch as delivered; one more shows that none arrives.
    events = PREFETCH + 1
    for _ in range(events):
        await events_bus.publish(an_event(tenant_id=subscriber.tenant_id))
    await subscriber.has_received(events)
    assert deliver.is_running


async def test_the_relay_declares_a_deleted_queue_when_its_message_returns(
    rows: Rows, events_bus: Bus, start: Start
) -> None:
    relay = await start("relay")
    await relay.until_alive()
    for queue in (queues.NOTIFY, topology.UNROUTED.name):
        await events_bus.delete(queue)
    event = an_event(
        data=DocumentFailed(
            document_id=DocumentId(uuid4()),
            upload_id=UploadId(uuid4()),
            job_id=JobId(uuid4()),
            filename="a.pdf",
            code="document_unreadable",
            detail="",
        )
    )
    await rows.add_to_outbox(event)
    message = await events_bus.take_when_declared(queues.NOTIFY)
    assert message.message_id == str(event.id)
    await eventually(rows.everything_is_published)
    assert relay.is_running


@pytest.fixture
def lose_data(infrastructure: Stack, broker: BrokerSettings) -> LoseData:
    async def replace() -> None:
        vhost = URL(broker.rabbitmq_url.get_secret_value()).path.strip("/")
        await asyncio.to_thread(infrastructure.create_vhost, vhost)

    return replace


async def test_the_notifier_continues_on_a_broker_that_lost_its_data(
    rows: Rows, lose_data: LoseData, start: Start, subscriber: Subscriber
) -> None:
    processes = [await start(command) for command in ("relay", "deliver")]
    for process in processes:
        await process.until_alive()
    for number in range(1, 3):
        await lose_data()
        await rows.add_to_outbox(an_event(tenant_id=subscriber.tenant_id))
        await subscriber.has_received(number)
    assert all(process.is_running for process in processes)
