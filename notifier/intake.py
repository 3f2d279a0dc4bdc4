"""The consumer of the queue `notify`: turns events into deliveries.

A message is acknowledged once its event is recorded. A repeated message finds
the record and is acknowledged too.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import structlog
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustConnection

from notifier.consumer import Consumer
from notifier.delivery.work import ReceivedEvent
from schemas import queues
from schemas.events.envelope import MalformedEvent, decode
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent

log = structlog.stdlib.get_logger(__name__)

GROUP_MAX: Final = 300
"""Events of one transaction: further ones make it slower, and cost no less each."""

PREFETCH: Final = 2 * GROUP_MAX
"""One group arrives while another one is recorded. A crash repeats as many."""

RecordEvents: TypeAlias = Callable[[Sequence[ReceivedEvent]], Awaitable[int]]
"""Records a group of events; returns how many were recorded before."""


class NotifyConsumer(Consumer[ReceivedEvent]):
    """Turns the events of the queue `notify` into deliveries."""

    def __init__(self, *, connection: AbstractRobustConnection, record: RecordEvents) -> None:
        """Create a consumer.

        Args:
            connection: see `Consumer`.
            record: records a group of events.
        """
        super().__init__(
            connection=connection, queues=(queues.NOTIFY,), prefetch=PREFETCH, group_max=GROUP_MAX
        )
        self._record_events = record

    async def _read(self, message: AbstractIncomingMessage, *, queue: str) -> ReceivedEvent | None:
        try:
            envelope = decode(message.body)
        except MalformedEvent as error:
            log.error(  # noqa: TRY400  # the traceback is the decoder's
                "consumer.malformed_event",
                queue=queue,
                message_id=message.message_id,
                reason=str(error),
            )
            await message.reject(requeue=False)
            return None
        header = message.headers.get(TRACEPARENT_HEADER)
        return ReceivedEvent(
            envelope=envelope,
            body=message.body,
            traceparent=valid_traceparent(header) if isinstance(header, str) else None,
        )

    async def _record(self, items: Sequence[ReceivedEvent]) -> None:
        repeated = await self._record_events(items)
        log.debug("consumer.recorded", events=len(items))
        if repeated:
            log.info("consumer.repeated_events", events=repeated)

    async def _acknowledge(self, messages: Sequence[AbstractIncomingMessage]) -> None:
        # In one frame: every message before these is settled.
        await messages[-1].ack(multiple=True)

    async def _give_up(
        self, message: AbstractIncomingMessage, item: ReceivedEvent, error: Exception
    ) -> None:
        log.error("consumer.event_failed", event_id=str(item.envelope.id), exc_info=error)
        await message.reject(requeue=False)
