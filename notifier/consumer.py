"""Consumes queues without losing or requeuing messages during an outage of the database.

A message is acknowledged once it is recorded; the broker delivers a message again whose
acknowledgement it did not get, so recording must be repeatable.
"""

import asyncio
import os
import socket
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final, Generic, Never, TypeVar

import aiormq
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractIncomingMessage,
    AbstractQueue,
    AbstractRobustConnection,
)

from notifier import broker
from schemas.runtime import amqp, outages, postgres

log = structlog.stdlib.get_logger(__name__)

Item = TypeVar("Item")

CLOSING_GRACE: Final = timedelta(seconds=5)
"""Time to finish the messages in progress when a consumer stops; others return to the queue."""


class Consumer(ABC, Generic[Item]):
    """Records every message of some queues. `Item` is what it records of one message."""

    def __init__(
        self, *, connection: AbstractRobustConnection, queues: Sequence[str], prefetch: int
    ) -> None:
        """Create a consumer.

        Args:
            connection: publishes nothing; consumers may share it, each has its own channel.
            queues: the names of the queues.
            prefetch: most messages of one queue in progress at once.
        """
        self._connection = connection
        self._queues = queues
        self._prefetch = prefetch
        self._channel: AbstractChannel | None = None
        self._tags: Mapping[str, AbstractQueue] = {}
        self._in_progress: set[asyncio.Task[None]] = set()
        self._received: Counter[str] = Counter()
        self._stalled: asyncio.Future[Item]  # a new one for each period of consuming

    @abstractmethod
    async def _read(self, message: AbstractIncomingMessage, *, queue: str) -> Item | None:
        """Return what is to be recorded; None if the message is already settled here."""

    @abstractmethod
    async def _record(self, item: Item) -> None:
        """Record an item in one transaction; a repetition must have no further effect."""

    @abstractmethod
    async def _give_up(
        self, message: AbstractIncomingMessage, item: Item, error: Exception
    ) -> None:
        """Log that a message cannot be recorded, for another reason than an outage, and settle it."""

    async def run(self) -> Never:
        """Consume until cancelled; during an outage of the database, consume nothing.

        The broker drops or dead-letters a message after a few deliveries, so messages must not be
        requeued repeatedly. During the outage messages wait in their queue, while this process
        keeps one item and retries it until it is recorded.
        """
        while True:
            item = await broker.through_outages(self._consume_until_stalled, doing="consuming")
            await postgres.through_outages(partial(self._record, item), doing="recording a message")
            log.info("consumer.resuming", queues=self._queues)

    async def is_consuming(self) -> bool:
        """Return whether the broker has this consumer on every queue.

        An open connection does not prove it.
        """
        channel = self._channel
        if channel is None or channel.is_closed or not self._connection.connected.is_set():
            return False
        underlay = await channel.get_underlay_channel()
        return isinstance(underlay, aiormq.Channel) and self._tags.keys() <= set(underlay.consumers)

    async def _consume_until_stalled(self) -> Item:
        """Consume until an item cannot be recorded, requeue its message and return the item."""
        self._stalled = asyncio.get_running_loop().create_future()
        await self._connection.ready()
        channel = await self._connection.channel()
        try:
            await channel.set_qos(prefetch_count=self._prefetch)
            await broker.declare_topology(channel)
            tags: dict[str, AbstractQueue] = {}
            try:
                for name in self._queues:
                    queue = await channel.get_queue(name)
                    # Legible in the management UI; unique within the channel.
                    tag = f"{type(self).__name__}@{socket.gethostname()}:{os.getpid()}/{name}"
                    handle = partial(self._on_message, queue=name)
                    tags[await queue.consume(handle, consumer_tag=tag)] = queue
                self._tags, self._channel = tags, channel
                log.info("consumer.started", queues=self._queues)
                return await self._until_stalled()
            finally:
                self._channel = None
                await self._finish(tags)
        finally:
            # Closing requeues every message that is not acknowledged.
            with suppress(*broker.OUTAGES, TimeoutError):
                async with asyncio.timeout(CLOSING_GRACE.total_seconds()):
                    await channel.close()

    async def _until_stalled(self) -> Item:
        """Return the item that cannot be recorded; check the subscriptions meanwhile.

        Raises:
            broker.SubscriptionLost: a queue is missing or its messages do not arrive.
        """
        check = amqp.SubscriptionCheck()
        while not self._stalled.done():
            interval = amqp.SUBSCRIPTION_CHECK.total_seconds()
            await asyncio.wait((self._stalled,), timeout=interval)
            for queue in self._queues:
                counts = await broker.count(self._connection, queue)
                if counts is None:  # the connection restores itself and the subscriptions
                    continue
                reason = check.reason(
                    queue,
                    consumers=counts.consumer_count or 0,
                    messages=counts.message_count or 0,
                    received=self._received[queue],
                    idle=not self._in_progress,
                )
                if reason is not None:
                    raise broker.SubscriptionLost(queue, reason)
        return self._stalled.result()

    async def _finish(self, tags: Mapping[str, AbstractQueue]) -> None:
        """Stop consuming and finish the messages in progress."""
        with suppress(*broker.OUTAGES, TimeoutError):
            async with asyncio.timeout(CLOSING_GRACE.total_seconds()):
                for tag, queue in tags.items():
                    if self._connection.connected.is_set():
                        await queue.cancel(tag)
                if self._in_progress:
                    await asyncio.wait(self._in_progress)

    async def _on_message(self, message: AbstractIncomingMessage, *, queue: str) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a consumer's callback runs in a task")
        self._in_progress.add(task)
        self._received[queue] += 1
        try:
            await self._handle(message, queue=queue)
        except broker.OUTAGES as error:
            # The broker still has the message and delivers it again.
            log.warning(
                "consumer.acknowledgement_lost",
                queue=queue,
                message_id=message.message_id,
                error=str(error),
            )
        finally:
            self._in_progress.discard(task)

    async def _handle(self, message: AbstractIncomingMessage, *, queue: str) -> None:
        item = await self._read(message, queue=queue)
        if item is None:
            return
        try:
            await self._record(item)
        except Exception as error:  # noqa: BLE001  # both branches log it
            if postgres.is_outage(error):
                self._stall(item, error)
            else:
                await self._give_up(message, item, error)
            return
        await message.ack()

    def _stall(self, item: Item, error: Exception) -> None:
        if not self._stalled.done():
            log.warning("consumer.stalled", queues=self._queues, error=outages.describe(error))
            self._stalled.set_result(item)
