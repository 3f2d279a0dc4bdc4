"""Publishes and takes messages with kombu only, independent of the product's code."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from kombu import Connection, Consumer, Producer, Queue
from kombu.message import Message

from schemas import queues
from schemas.events import envelope
from schemas.events.envelope import Envelope

SOON = timedelta(seconds=20)

QUEUES = {
    "upload.finalized": (queues.UPLOADS,),
    "upload.cancelled": (queues.UPLOADS,),
    "upload.stored": (queues.METADATA_EXTRACTION, queues.DOCUMENT_PROCESSING),
}


class Bus:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._producer = Producer(connection.channel())
        # The stubs know only what all of kombu's transports have in common.
        self._raw: Any = connection.channel()

    def publish(self, event: Envelope) -> None:
        """Publish the event of steps to the queue of each step, as the relay does."""
        for queue in QUEUES[event.type]:
            self.publish_to(queue, event)

    def publish_to(self, queue: str, event: Envelope) -> None:
        self.publish_raw(
            envelope.encode(event), routing_key=queue, content_type=envelope.CONTENT_TYPE
        )

    def publish_raw(self, body: bytes, **properties: Any) -> None:  # noqa: ANN401  # whatever AMQP can carry
        """Publish any bytes, by default to the queue that `routing_key` names."""
        self._producer.publish(
            body,
            **{
                "exchange": "",
                "content_encoding": "utf-8",
                "delivery_mode": 2,
                "mandatory": True,
                "confirm_timeout": 10,
                **properties,
            },
        )

    def take(self, queue: str, *, within: timedelta = SOON) -> Message:
        """Take the next message of a queue.

        Raises:
            TimeoutError: no message arrived in time.
        """
        taken: list[Message] = []
        with Consumer(
            self._connection.channel(),
            [Queue(queue, no_declare=True)],
            on_message=taken.append,
            on_decode_error=lambda message, _: taken.append(message),
            accept=None,
            prefetch_count=1,
        ):
            self._connection.drain_events(timeout=within.total_seconds())
        taken[0].ack()
        return taken[0]

    def take_about(self, event: Envelope, *, queue: str) -> Message:
        """Take messages until one is a copy of this event; drop the others."""
        while True:
            message = self.take(queue)
            if str(event.id) in str(message.body):
                return message

    def depth(self, queue: str) -> int:
        declared = self._raw.queue_declare(queue, passive=True)
        return int(declared.message_count)


@contextmanager
def connected(rabbitmq_url: str) -> Iterator[Bus]:
    with Connection(rabbitmq_url, transport_options={"confirm_publish": True}) as connection:
        yield Bus(connection)
