"""Publishes, takes and counts messages, independent of the code under test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, HeadersType
from aio_pika.exceptions import ChannelNotFoundEntity

from notifier import broker
from schemas import topology
from schemas.events.envelope import CONTENT_TYPE, Envelope, encode
from schemas.settings import BrokerSettings

SOON = 20


class Bus:
    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel

    async def publish(self, event: Envelope) -> None:
        """Publish an event as the relay does."""
        await self.publish_raw(encode(event), routing_key=event.type)

    async def publish_raw(self, body: bytes, *, routing_key: str) -> None:
        exchange = await self._channel.get_exchange(topology.EVENTS.name, ensure=False)
        await exchange.publish(
            aio_pika.Message(
                body, content_type=CONTENT_TYPE, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            ),
            routing_key=routing_key,
        )

    async def publish_to(
        self,
        queue: str,
        body: bytes,
        *,
        message_id: str | None = None,
        headers: HeadersType | None = None,
    ) -> None:
        """Publish to one queue."""
        await self._channel.default_exchange.publish(
            aio_pika.Message(
                body, content_type=CONTENT_TYPE, message_id=message_id, headers=headers
            ),
            routing_key=queue,
        )

    async def dead_letter(
        self,
        body: bytes,
        *,
        queue: str,
        message_id: str | None = None,
        headers: HeadersType | None = None,
    ) -> None:
        """Publish to a work queue without a consumer, and reject the message there."""
        await self.publish_to(queue, body, message_id=message_id, headers=headers)
        source = await self._channel.get_queue(queue)
        message = await source.get(timeout=SOON)
        await message.reject(requeue=False)

    async def take(self, queue: str) -> AbstractIncomingMessage:
        """Take the next message."""
        return (await self.take_until(queue, count=1))[0]

    async def take_when_declared(self, queue: str) -> AbstractIncomingMessage:
        """Take the next message of a queue that does not exist yet."""
        async with asyncio.timeout(SOON):
            while True:
                try:
                    return await self.take(queue)
                except ChannelNotFoundEntity:
                    await self._channel.reopen()
                    await asyncio.sleep(0.1)

    async def take_until(self, queue: str, *, count: int) -> list[AbstractIncomingMessage]:
        """Take messages until `count` of them have distinct ids; also returns repeated messages.

        Raises:
            TimeoutError: fewer messages arrived in time.
        """
        taken: list[AbstractIncomingMessage] = []
        enough = asyncio.Event()

        async def take(message: AbstractIncomingMessage) -> None:
            await message.ack()
            taken.append(message)
            if len({each.message_id or each.delivery_tag for each in taken}) >= count:
                enough.set()

        source = await self._channel.get_queue(queue)
        tag = await source.consume(take)
        async with asyncio.timeout(SOON):
            await enough.wait()
        await source.cancel(tag)
        return taken

    async def add_full_queue(self, *, routing_key: str) -> None:
        """Bind a full queue, so that the broker rejects messages with this routing key."""
        full = await self._channel.declare_queue(
            f"full-{routing_key}",
            durable=True,
            arguments={"x-max-length": 0, "x-overflow": "reject-publish"},
        )
        await full.bind(topology.EVENTS.name, routing_key=routing_key)

    async def delete(self, queue: str) -> None:
        await self._channel.queue_delete(queue)

    async def declare_topology(self) -> None:
        await broker.declare_topology(self._channel)

    async def consumers(self, queue: str) -> int:
        """Return the number of a queue's consumers; 0 while the queue is missing."""
        try:
            source = await self._channel.declare_queue(queue, passive=True)
        except ChannelNotFoundEntity:
            await self._channel.reopen()
            return 0
        return source.declaration_result.consumer_count or 0

    async def depth(self, queue: str) -> int:
        source = await self._channel.declare_queue(queue, passive=True)
        return source.declaration_result.message_count or 0


@asynccontextmanager
async def connected(settings: BrokerSettings) -> AsyncIterator[Bus]:
    connection = await aio_pika.connect(settings.rabbitmq_url.get_secret_value())
    async with connection, connection.channel(on_return_raises=True) as channel:
        await broker.declare_topology(channel)
        yield Bus(channel)
