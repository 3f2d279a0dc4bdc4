"""The topology on a real broker; each service declares the same topology with its own client."""

from collections.abc import AsyncIterator
from datetime import timedelta

import aio_pika
import kombu
import pytest
from aio_pika.abc import AbstractRobustConnection

from notifier import broker as notifier_broker
from notifier.broker import EventExchange, PublishRefused
from pipeline.messaging import broker as pipeline_broker
from schemas import topology
from schemas.runtime.amqp import TopologyConflict
from schemas.settings import BrokerSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def connection(broker: BrokerSettings) -> AsyncIterator[AbstractRobustConnection]:
    async with await notifier_broker.connect(broker, name="tests") as connected:
        yield connected


async def test_every_exchange_and_queue_exists_after_the_declaration(
    connection: AbstractRobustConnection,
) -> None:
    channel = await connection.channel()
    await notifier_broker.declare_topology(channel)
    another = await connection.channel()
    for exchange in topology.EXCHANGES:
        await another.declare_exchange(exchange.name, passive=True)
    for queue in topology.QUEUES:
        await another.declare_queue(queue.name, passive=True)


async def test_a_repeated_declaration_changes_nothing(connection: AbstractRobustConnection) -> None:
    for _ in range(2):
        await notifier_broker.declare_topology(await connection.channel())


async def test_both_services_declare_the_same_topology(
    connection: AbstractRobustConnection, broker: BrokerSettings
) -> None:
    await notifier_broker.declare_topology(await connection.channel())
    with kombu.Connection(broker.rabbitmq_url.get_secret_value()) as celery:
        pipeline_broker.declare_topology(celery)
    await notifier_broker.declare_topology(await connection.channel())


async def test_the_maintenance_queue_drops_its_oldest_messages(
    connection: AbstractRobustConnection,
) -> None:
    await notifier_broker.declare_topology(await connection.channel())
    channel = await connection.channel()
    for number in range(topology.MAINTENANCE_LENGTH + 5):
        await channel.default_exchange.publish(
            aio_pika.Message(str(number).encode()), routing_key=topology.MAINTENANCE
        )
    queue = await channel.declare_queue(topology.MAINTENANCE, passive=True)
    assert queue.declaration_result.message_count == topology.MAINTENANCE_LENGTH
    oldest = await queue.get()
    assert oldest.body == b"5"
    await oldest.ack()


async def test_the_error_names_a_queue_that_exists_with_other_arguments(
    connection: AbstractRobustConnection,
) -> None:
    channel = await connection.channel()
    await channel.declare_queue("notify", durable=True, robust=False)
    with pytest.raises(TopologyConflict, match="notify exists with other arguments"):
        await notifier_broker.declare_topology(await connection.channel())


@pytest.mark.parametrize(
    ("queue", "event_type"),
    [(queue, each) for queue, types in topology.SUBSCRIPTIONS.items() for each in types],
)
async def test_an_event_reaches_the_queues_that_subscribe_to_it(
    connection: AbstractRobustConnection, queue: str, event_type: str
) -> None:
    exchange = await EventExchange.open(connection, publish_timeout=timedelta(seconds=10))
    await exchange.publish(aio_pika.Message(b"{}"), routing_key=event_type)
    channel = await connection.channel()
    message = await (await channel.declare_queue(queue, passive=True)).get()
    assert message.routing_key == event_type
    await message.ack()


async def test_a_message_that_its_queue_rejects_is_refused(
    connection: AbstractRobustConnection,
) -> None:
    exchange = await EventExchange.open(connection, publish_timeout=timedelta(seconds=10))
    channel = await connection.channel()
    full = await channel.declare_queue(
        "full", durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )
    await full.bind(topology.EVENTS.name, routing_key="upload.stored")
    with pytest.raises(PublishRefused, match="rejected by a queue"):
        await exchange.publish(aio_pika.Message(b"{}"), routing_key="upload.stored")


async def test_without_the_alternate_exchange_an_unroutable_message_is_returned(
    connection: AbstractRobustConnection,
) -> None:
    exchange = await EventExchange.open(connection, publish_timeout=timedelta(seconds=10))
    channel = await connection.channel()
    await channel.queue_delete(topology.UNROUTED.name)
    with pytest.raises(PublishRefused, match="returned: NO_ROUTE"):
        await exchange.publish(aio_pika.Message(b"{}"), routing_key="upload.unheard_of")
