"""The consumer of the queue `notify`: turns events into deliveries.

A message is acknowledged once its event is recorded. A repeated message finds
the record and is acknowledged too.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustConnection

from notifier.consumer import Consumer
from notifier.delivery.work import ReceivedEvent
from schemas import queues
from schemas.events.envelope import Envelope, MalformedEvent, decode

log = structlog.stdlib.get_logger(__name__)

PREFETCH: Final = 16
"""Messages in progress at once: enough to hide the round trips to broker and database, and
few enough for a crash to repeat."""


RecordEvents: TypeAlias = Callable[[Sequence[ReceivedEvent]], Awaitable[int]]
"""Records a group of events; returns how many were recorded before."""


@dataclass(frozen=True, kw_only=True)
class _Event:
    envelope: Envelope
    body: bytes


class NotifyConsumer(Consumer[_Event]):
    """Turns the events of the queue `notify` into deliveries."""

    def __init__(
        self,
        *,
        connection: AbstractRobustConnection,
        record: RecordEvents,
    ) -> None:
        """Create a consumer.

        Args:
            connection: see `Consumer`.
            record: records a group of events.
        """
        super().__init__(connection=connection, queues=(queues.NOTIFY,), prefetch=PREFETCH)
        self._record_events = record

    async def _read(self, message: AbstractIncomingMessage, *, queue: str) -> _Event | None:
        try:
            return _Event(envelope=decode(message.body), body=message.body)
        except MalformedEvent as error:
            log.error(  # noqa: TRY400  # the traceback is the decoder's
                "consumer.malformed_event",
                queue=queue,
                message_id=message.message_id,
                reason=str(error),
            )
            await message.reject(requeue=False)
            return None

    async def _record(self, item: _Event) -> None:
        event = ReceivedEvent(envelope=item.envelope, body=item.body, traceparent=None)
        facts = {"event_id": str(item.envelope.id), "type": item.envelope.type}
        if await self._record_events([event]):
            log.info("consumer.repeated_event", **facts)
            return
        log.debug("consumer.recorded", **facts)

    async def _give_up(
        self, message: AbstractIncomingMessage, item: _Event, error: Exception
    ) -> None:
        log.error("consumer.event_failed", event_id=str(item.envelope.id), exc_info=error)
        await message.reject(requeue=False)
