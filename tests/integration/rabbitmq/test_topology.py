"""The topology on a real broker; each service declares the same topology with its own client."""

import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias

import aio_pika
import kombu
import pytest
from aio_pika.abc import AbstractRobustConnection

from notifier import broker as notifier_broker
from notifier.broker import EventExchange, PublishRefused
from pipeline.messaging import broker as pipeline_broker
from schemas import queues, topology
from schemas.runtime.amqp import TopologyConflict
from schemas.settings import BrokerSettings

pytestmark = pytest.mark.anyio


PUBLISH_TIMEOUT = timedelta(seconds=10)
MESSAGE = aio_pika.Message(b"{}")

Declare: TypeAlias = Callable[[], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def connection(broker: BrokerSettings) -> AsyncIterator[AbstractRobustConnection]:
    async with await notifier_broker.connect(broker, name="tests") as connected:
        yield connected


async def take_all(connection: AbstractRobustConnection) -> dict[str, list[str | None]]:
    """Take every message; return the routing keys of the messages by queue."""
    taken: dict[str, list[str | None]] = defaultdict(list)
    channel = await connection.channel()
    for each in topology.QUEUES:
        queue = await channel.declare_queue(each.name, passive=True, robust=False)
        while (message := await queue.get(fail=False)) is not None:
            await message.ack()
            taken[each.name].append(message.routing_key)
    return taken


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


@pytest.fixture(params=["notifier", "pipeline"])
def declare(
    request: pytest.FixtureRequest, broker: BrokerSettings, connection: AbstractRobustConnection
) -> Declare:
    """The declaration by one of the services."""

    async def notifier() -> None:
        await notifier_broker.declare_topology(await connection.channel())

    async def pipeline() -> None:
        with kombu.Connection(broker.rabbitmq_url.get_secret_value()) as celery:
            pipeline_broker.declare_topology(celery)

    return {"notifier": notifier, "pipeline": pipeline}[request.param]


async def test_a_declaration_removes_the_bindings_of_earlier_versions(
    connection: AbstractRobustConnection, declare: Declare
) -> None:
    channel = await connection.channel()
    exchange = await EventExchange.open(connection, publish_timeout=PUBLISH_TIMEOUT)
    for name, routing_key in topology.OBSOLETE_BINDINGS:
        queue = await channel.declare_queue(name, passive=True, robust=False)
        await queue.bind(topology.EVENTS.name, routing_key=routing_key)
    # Twice: to remove a binding that does not exist is no error.
    for _ in range(2):
        await declare()
    for _, routing_key in topology.OBSOLETE_BINDINGS:
        await exchange.publish(MESSAGE, routing_key=routing_key)
    received = await take_all(connection)
    assert received.keys() <= {queues.NOTIFY, topology.UNROUTED.name}


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


async def test_the_pipeline_declares_again_what_a_lost_connection_has_interrupted(
    broker: BrokerSettings,
    connection: AbstractRobustConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare_queue = pipeline_broker.declare_queue
    losses = iter([True])

    def lose_the_first_connection(
        channel: Any,  # noqa: ANN401  # as in `declare_queue`
        queue: topology.Queue,
    ) -> None:
        if next(losses, False):
            channel.connection.transport.sock.shutdown(socket.SHUT_RDWR)
        declare_queue(channel, queue)

    monkeypatch.setattr(pipeline_broker, "declare_queue", lose_the_first_connection)
    with kombu.Connection(broker.rabbitmq_url.get_secret_value()) as own:
        pipeline_broker.ensure_topology(own)

    assert next(losses, None) is None
    channel = await connection.channel()
    for queue in topology.QUEUES:
        await channel.declare_queue(queue.name, passive=True)


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
async def test_a_fact_reaches_only_the_queues_that_subscribe_to_it(
    connection: AbstractRobustConnection, queue: str, event_type: str
) -> None:
    exchange = await EventExchange.open(connection, publish_timeout=PUBLISH_TIMEOUT)
    await exchange.publish(MESSAGE, routing_key=event_type)
    assert await take_all(connection) == {queue: [event_type]}


@pytest.mark.parametrize("queue", topology.WORK_QUEUES)
async def test_work_reaches_only_its_queue(
    connection: AbstractRobustConnection, queue: str
) -> None:
    exchange = await EventExchange.open(connection, publish_timeout=PUBLISH_TIMEOUT)
    await exchange.publish_to_queue(MESSAGE, queue=queue)
    assert await take_all(connection) == {queue: [queue]}


async def test_work_for_a_missing_queue_is_refused(connection: AbstractRobustConnection) -> None:
    exchange = await EventExchange.open(connection, publish_timeout=PUBLISH_TIMEOUT)
    await (await connection.channel()).queue_delete(queues.UPLOADS)
    with pytest.raises(PublishRefused, match="returned: NO_ROUTE"):
        await exchange.publish_to_queue(MESSAGE, queue=queues.UPLOADS)


async def test_a_message_that_its_queue_rejects_is_refused(
    connection: AbstractRobustConnection,
) -> None:
    exchange = await EventExchange.open(connection, publish_timeout=PUBLISH_TIMEOUT)
    channel = await connection.channel()
    full = await channel.declare_queue(
        "full", durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )
    await full.bind(topology.EVENTS.name, routing_key="upload.stored")
    with pytest.raises(PublishRefused, match="rejected by a queue"):
        await exchange.publish(MESSAGE, routing_key="upload.stored")


async def test_without_the_alternate_exchange_an_unroutable_message_is_returned(
    connection: AbstractRobustConnection,
) -> None:
    exchange = await EventExchange.open(connection, publish_timeout=PUBLISH_TIMEOUT)
    channel = await connection.channel()
    await channel.queue_delete(topology.UNROUTED.name)
    with pytest.raises(PublishRefused, match="returned: NO_ROUTE"):
        await exchange.publish(MESSAGE, routing_key="upload.unheard_of")
