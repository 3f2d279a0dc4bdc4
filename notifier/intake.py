"""The consumer of the queue `notify`: turns events into deliveries.

A message is acknowledged once its event is recorded. A repeated message finds
the record and is acknowledged too.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Never

import aiormq
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractIncomingMessage,
    AbstractQueue,
    AbstractRobustConnection,
)

from notifier import broker, db
from notifier.delivery import operations
from schemas import topology
from schemas.events.envelope import Envelope, MalformedEvent, decode
from schemas.runtime import outages, postgres

log = structlog.stdlib.get_logger(__name__)

PREFETCH: Final = 16
"""Messages in progress at once: enough to hide the round trips to broker and database, and
few enough for a crash to repeat."""

CLOSING_GRACE: Final = timedelta(seconds=5)
"""Time to finish the messages in progress when the consumer stops; others return to the queue."""


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
        """Create a consumer.

        Args:
            connection: used by this consumer only.
            transaction: begins a transaction.
            wake: called after deliveries were recorded.
        """
        self._connection = connection
        self._transaction = transaction
        self._wake = wake
        self._channel: AbstractChannel | None = None
        self._tag = ""
        self._in_progress: set[asyncio.Task[None]] = set()
        self._stalled: asyncio.Future[_Event]  # a new one for each period of consuming

    async def run(self) -> Never:
        """Consume until cancelled; during an outage of the database, consume nothing.

        The broker dead-letters a message after a few deliveries, so messages must not be requeued
        repeatedly. During the outage messages wait in the queue, while this process keeps one event
        and retries it until it is recorded.
        """
        while True:
            event = await broker.through_outages(self._consume_until_stalled, doing="consuming")
            await postgres.through_outages(partial(self._record, event), doing="recording an event")
            log.info("consumer.resuming")

    async def is_consuming(self) -> bool:
        """Return whether the broker has this consumer; an open connection does not prove it."""
        channel = self._channel
        if channel is None or channel.is_closed or not self._connection.connected.is_set():
            return False
        underlay = await channel.get_underlay_channel()
        return isinstance(underlay, aiormq.Channel) and self._tag in underlay.consumers

    async def _consume_until_stalled(self) -> _Event:
        """Consume until an event cannot be recorded, requeue its message and return the event."""
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
            # Closing requeues every message that is not acknowledged.
            with suppress(*broker.OUTAGES, TimeoutError):
                async with asyncio.timeout(CLOSING_GRACE.total_seconds()):
                    await channel.close()

    async def _finish(self, queue: AbstractQueue) -> None:
        """Stop consuming and finish the messages in progress."""
        with suppress(*broker.OUTAGES, TimeoutError):
            async with asyncio.timeout(CLOSING_GRACE.total_seconds()):
                if self._connection.connected.is_set():
                    await queue.cancel(self._tag)
                if self._in_progress:
                    await asyncio.wait(self._in_progress)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a consumer's callback runs in a task")
        self._in_progress.add(task)
        try:
            await self._handle(message)
        except broker.OUTAGES as error:
            # The broker still has the message and delivers it again.
            log.warning(
                "consumer.acknowledgement_lost", message_id=message.message_id, error=str(error)
            )
        finally:
            self._in_progress.discard(task)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        try:
            event = _Event(envelope=decode(message.body), body=message.body)
        except MalformedEvent as error:
            log.error(  # noqa: TRY400  # the traceback is the decoder's
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
            deliveries = await operations.record_event(connection, event.envelope, body=event.body)
        facts = {"event_id": str(event.envelope.id), "type": event.envelope.type}
        if deliveries is None:
            log.info("consumer.repeated_event", **facts)
            return
        log.debug("consumer.recorded", **facts, deliveries=deliveries)
        if deliveries:
            self._wake.call()
