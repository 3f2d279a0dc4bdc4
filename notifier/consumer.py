"""Consumes queues without losing or requeuing messages during an outage of the database.

Messages are recorded in groups. A message is acknowledged once it is recorded; the broker delivers a
message again whose acknowledgement it did not get, so recording must be repeatable.
"""

import asyncio
import os
import socket
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final, Generic, Never, TypeAlias, TypeVar

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

Group: TypeAlias = Sequence[tuple[AbstractIncomingMessage, Item]]

CLOSING_GRACE: Final = timedelta(seconds=5)
"""Time to finish the messages in progress when a consumer stops; others return to the queue."""

GROUP_INTERVAL: Final = timedelta(milliseconds=5)
"""Between the starts of two groups that are not full: a group costs as much as dozens of messages.
A message after a pause waits for nothing."""


class Consumer(ABC, Generic[Item]):
    """Records every message of some queues. `Item` is what it records of one message."""

    def __init__(
        self,
        *,
        connection: AbstractRobustConnection,
        queues: Sequence[str],
        prefetch: int,
        group_max: int = 1,
    ) -> None:
        """Create a consumer.

        Args:
            connection: publishes nothing; consumers may share it, each has its own channel.
            queues: the names of the queues.
            prefetch: most messages of one queue in progress at once.
            group_max: most messages that are recorded at once.
        """
        self._connection = connection
        self._queues = queues
        self._prefetch = prefetch
        self._group_max = group_max
        self._channel: AbstractChannel | None = None
        self._tags: Mapping[str, AbstractQueue] = {}
        self._received: Counter[str] = Counter()
        # New ones for each period of consuming.
        self._waiting: deque[tuple[AbstractIncomingMessage, str]] = deque()
        self._arrived = asyncio.Event()
        self._is_stopping = False
        self._is_recording = False

    @abstractmethod
    async def _read(self, message: AbstractIncomingMessage, *, queue: str) -> Item | None:
        """Return what is to be recorded; None if the message is already settled here."""

    @abstractmethod
    async def _record(self, items: Sequence[Item]) -> None:
        """Record items in one transaction; a repetition must have no further effect."""

    @abstractmethod
    async def _give_up(
        self, message: AbstractIncomingMessage, item: Item, error: Exception
    ) -> None:
        """Log that a message cannot be recorded, for another reason than an outage, and settle it."""

    async def _acknowledge(self, messages: Sequence[AbstractIncomingMessage]) -> None:
        """Acknowledge recorded messages; a message before them may be left unsettled."""
        for message in messages:
            await message.ack()

    async def run(self) -> Never:
        """Consume until cancelled; during an outage of the database, consume nothing.

        The broker drops or dead-letters a message after a few deliveries, so messages must not be
        requeued repeatedly. During the outage messages wait in their queue, while this process
        keeps one group and retries it until it is recorded.
        """
        while True:
            items = await broker.through_outages(self._consume_until_stalled, doing="consuming")
            await postgres.through_outages(partial(self._record, items), doing="recording messages")
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

    async def _consume_until_stalled(self) -> Sequence[Item]:
        """Consume until a group cannot be recorded, requeue its messages and return its items."""
        self._waiting, self._arrived, self._is_stopping = deque(), asyncio.Event(), False
        await self._connection.ready()
        channel = await self._connection.channel()
        try:
            await channel.set_qos(prefetch_count=self._prefetch)
            await broker.declare_topology(channel)
            tags: dict[str, AbstractQueue] = {}
            recording = asyncio.create_task(self._record_until_stalled())
            try:
                for name in self._queues:
                    queue = await channel.get_queue(name)
                    # Legible in the management UI; unique within the channel.
                    tag = f"{type(self).__name__}@{socket.gethostname()}:{os.getpid()}/{name}"
                    handle = partial(self._on_message, queue=name)
                    tags[await queue.consume(handle, consumer_tag=tag)] = queue
                self._tags, self._channel = tags, channel
                log.info("consumer.started", queues=self._queues)
                return await self._until_stalled(recording)
            finally:
                self._channel = None
                await self._finish(tags, recording)
        finally:
            # Closing requeues every message that is not acknowledged.
            with suppress(*broker.OUTAGES, TimeoutError):
                async with asyncio.timeout(CLOSING_GRACE.total_seconds()):
                    await channel.close()

    async def _until_stalled(self, recording: asyncio.Task[Sequence[Item]]) -> Sequence[Item]:
        """Return the items that cannot be recorded; check the subscriptions meanwhile.

        Raises:
            broker.SubscriptionLost: a queue is missing or its messages do not arrive.
        """
        check = amqp.SubscriptionCheck()
        while not recording.done():
            interval = amqp.SUBSCRIPTION_CHECK.total_seconds()
            await asyncio.wait((recording,), timeout=interval)
            for queue in self._queues:
                counts = await broker.count(self._connection, queue)
                if counts is None:  # the connection restores itself and the subscriptions
                    continue
                reason = check.reason(
                    queue,
                    consumers=counts.consumer_count or 0,
                    messages=counts.message_count or 0,
                    received=self._received[queue],
                    idle=not self._waiting and not self._is_recording,
                )
                if reason is not None:
                    raise broker.SubscriptionLost(queue, reason)
        return recording.result()

    async def _finish(
        self, tags: Mapping[str, AbstractQueue], recording: asyncio.Task[Sequence[Item]]
    ) -> None:
        """Stop consuming and finish the group in progress."""
        self._is_stopping = True
        self._arrived.set()
        try:
            with suppress(*broker.OUTAGES, TimeoutError):
                async with asyncio.timeout(CLOSING_GRACE.total_seconds()):
                    for tag, queue in tags.items():
                        if self._connection.connected.is_set():
                            await queue.cancel(tag)
                    await asyncio.wait((recording,))
        finally:
            recording.cancel()

    async def _on_message(self, message: AbstractIncomingMessage, *, queue: str) -> None:
        self._received[queue] += 1
        self._waiting.append((message, queue))
        self._arrived.set()

    async def _record_until_stalled(self) -> Sequence[Item]:
        """Record the messages that arrive, in groups; return a group that meets an outage.

        Returns:
            Nothing once the consumer is stopping.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._is_stopping:
                return ()
            if not self._waiting:
                self._arrived.clear()
                continue
            began = loop.time()
            self._is_recording = True
            try:
                unrecorded = await self._handle_group()
            finally:
                self._is_recording = False
            if unrecorded:
                return unrecorded
            if len(self._waiting) < self._group_max:
                rest = GROUP_INTERVAL.total_seconds() - (loop.time() - began)
                await asyncio.sleep(max(rest, 0))

    async def _handle_group(self) -> Sequence[Item]:
        """Record the next group; return its items if the database is out of order."""
        received = [
            self._waiting.popleft() for _ in range(min(len(self._waiting), self._group_max))
        ]
        try:
            group = []
            for message, queue in received:
                item = await self._read(message, queue=queue)
                if item is not None:
                    group.append((message, item))
            return await self._settle(group) if group else ()
        except broker.OUTAGES as error:
            # The broker still has the messages and delivers them again.
            log.warning(
                "consumer.acknowledgement_lost",
                queues=sorted({queue for _, queue in received}),
                messages=len(received),
                error=str(error),
            )
            return ()

    async def _settle(self, group: Group[Item]) -> Sequence[Item]:
        """Record a group and acknowledge its messages; return its items if it meets an outage."""
        items = [item for _, item in group]
        try:
            await self._record(items)
        except Exception as error:  # noqa: BLE001  # every branch logs it
            if postgres.is_outage(error):
                log.warning("consumer.stalled", queues=self._queues, error=outages.describe(error))
                return items
            if len(group) == 1:
                ((message, item),) = group
                await self._give_up(message, item, error)
                return ()
            log.warning("consumer.group_failed", messages=len(group), error=outages.describe(error))
        else:
            await self._acknowledge([message for message, _ in group])
            return ()
        # One message is to blame; the others are recorded without it.
        for number, each in enumerate(group):
            if await self._settle([each]):
                return items[number:]
        return ()
