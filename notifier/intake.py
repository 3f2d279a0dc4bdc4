"""From the broker to the table of deliveries.

A message is acknowledged once its event is on record; a second copy of it
finds the record and is acknowledged too.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Never

import aiormq
import structlog
from aio_pika.abc import (
    AbstractIncomingMessage,
    AbstractQueue,
    AbstractRobustConnection,
)

from notifier import broker, db
from notifier.delivery import operations
from schemas import topology
from schemas.events.envelope import Envelope, MalformedEvent, decode
from schemas.runtime import outages, postgres

if TYPE_CHECKING:
    from aio_pika.abc import (
        AbstractChannel,
    )


log = structlog.stdlib.get_logger(__name__)

PREFETCH: Final = 16
"""Messages under way at once: enough to hide the round trips to broker and database,
few enough that what a crash makes the broker deliver again is nothing to speak of."""

CLOSING_GRACE: Final = timedelta(seconds=5)
"""For messages being recorded when the consumer stops; the rest goes back to the queue."""


@dataclass(frozen=True, kw_only=True)
class _Event:
    envelope: Envelope
    body: bytes


class NotifyConsumer:
    """Turns the events of the queue `notify` into deliveries."""

    def __init__(
        self,
        *,
        connection: AbstractRobustConnection,
        transaction: db.BeginConnection,
        wake: db.WakeUp,
    ) -> None:
        """Take what the consumer works with.

        Args:
            connection: used for nothing else.
            transaction: opens a transaction.
            wake: called when deliveries were written.
        """
        self._connection = connection
        self._transaction = transaction
        self._wake = wake
        self._channel: AbstractChannel | None = None
        self._tag = ""
        self._under_way: set[asyncio.Task[None]] = set()
        self._stalled: asyncio.Future[_Event]  # another one for each time of consuming

    async def run(self) -> Never:
        """Consume until cancelled.

        While the database is away nothing is consumed. The broker counts how
        often it delivers a message and gives it up after a few times, so
        messages are neither sent round in circles nor held until the broker
        takes them back: they wait in the queue, and one event, kept here, is
        tried until it can be recorded.
        """
        while True:
            event = await broker.through_outages(self._consume_until_stalled, doing="consuming")
            await postgres.through_outages(partial(self._record, event), doing="recording an event")
            log.info("consumer.resuming")

    async def is_consuming(self) -> bool:
        """Whether the broker knows this consumer now; an open connection alone proves nothing."""
        channel = self._channel
        if channel is None or channel.is_closed or not self._connection.connected.is_set():
            return False
        underlay = await channel.get_underlay_channel()
        return isinstance(underlay, aiormq.Channel) and self._tag in underlay.consumers

    async def _consume_until_stalled(self) -> _Event:
        """Consume until an event cannot be recorded, and return it; its message is back in the queue."""
        self._stalled = asyncio.get_running_loop().create_future()
        await self._connection.ready()
        channel = await self._connection.channel()
        try:
            await channel.set_qos(prefetch_count=PREFETCH)
            await broker.declare_topology(channel)
            queue = await channel.get_queue(topology.NOTIFY)
            self._tag = await queue.consume(self._on_message)
            self._channel = channel
            log.info("consumer.started", queue=queue.name)
            try:
                return await self._stalled
            finally:
                self._channel = None
                await self._finish(queue)
        finally:
            # Whatever is not acknowledged by now goes back to the queue.
            with suppress(*broker.OUTAGES, TimeoutError):
                async with asyncio.timeout(CLOSING_GRACE.total_seconds()):
                    await channel.close()

    async def _finish(self, queue: AbstractQueue) -> None:
        """Take no more, and end what is under way."""
        with suppress(*broker.OUTAGES, TimeoutError):
            async with asyncio.timeout(CLOSING_GRACE.total_seconds()):
                if self._connection.connected.is_set():
                    await queue.cancel(self._tag)
                if self._under_way:
                    await asyncio.wait(self._under_way)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a consumer's callback runs in a task")
        self._under_way.add(task)
        try:
            await self._handle(message)
        except broker.OUTAGES as error:
            # The broker has the message still, and delivers it again.
            log.warning("consumer.answer_lost", message_id=message.message_id, error=str(error))
        finally:
            self._under_way.discard(task)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        try:
            event = _Event(envelope=decode(message.body), body=message.body)
        except MalformedEvent as error:
            log.error(  # noqa: TRY400  # the reason says it all; the traceback is the decoder's
                "consumer.malformed_event", message_id=message.message_id, reason=str(error)
            )
            await message.reject(requeue=False)
            return
        try:
            await self._record(event)
        except Exception as error:
            if postgres.is_outage(error):
                self._stall(event, error)
                return
            log.exception("consumer.event_failed", event_id=str(event.envelope.id))
            await message.reject(requeue=False)
            return
        await message.ack()

    def _stall(self, event: _Event, error: Exception) -> None:
        if not self._stalled.done():
            log.warning("consumer.stalled", error=outages.describe(error))
            self._stalled.set_result(event)

    async def _record(self, event: _Event) -> None:
        async with self._transaction() as connection:
            recorded = await operations.record_event(connection, event.envelope, body=event.body)
        facts = {"event_id": str(event.envelope.id), "type": event.envelope.type}
        match recorded:
            case operations.RecordedBefore():
                log.info("consumer.repetition", **facts)
            case operations.Recorded(deliveries=deliveries):
                log.debug("consumer.recorded", **facts, deliveries=deliveries)
                if deliveries:
                    self._wake.call()
