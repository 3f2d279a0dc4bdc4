"""Collects the events that the demo causes from the exchange."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Condition, Event, Thread
from typing import Any

import msgspec
from kombu import Connection, Consumer, Exchange, Queue
from kombu.message import Message

from schemas import topology


class Events:
    """The events received so far."""

    def __init__(self) -> None:
        self._arrived = Condition()
        self.seen: list[dict[str, Any]] = []

    def take(self, message: Message) -> None:
        with self._arrived:
            self.seen.append(msgspec.json.decode(message.body or b"null"))
            self._arrived.notify_all()

    def wait_for(self, types: Sequence[str], *, subject: str, timeout: timedelta) -> None:
        """Return when an event of each type has arrived for this upload.

        Raises:
            TimeoutError: one of the events did not arrive in time.
        """

        def missing() -> set[str]:
            return set(types) - {
                event["type"] for event in self.seen if event["data"]["upload_id"] == subject
            }

        with self._arrived:
            if not self._arrived.wait_for(lambda: not missing(), timeout.total_seconds()):
                raise TimeoutError(f"not received within {timeout}: {', '.join(sorted(missing()))}")

    def object_key_of(self, upload_id: str) -> str:
        (key,) = (
            event["data"]["object_key"]
            for event in self.seen
            if event["type"] == "upload.stored" and event["data"]["upload_id"] == upload_id
        )
        return str(key)


@contextmanager
def tapped(rabbitmq_url: str) -> Iterator[Events]:
    """Collect the events that are published while the block runs."""
    events, ended = Events(), Event()
    with Connection(rabbitmq_url) as connection:
        exchange = Exchange(topology.EVENTS.name, type=topology.EVENTS.kind, no_declare=True)
        # Exclusive: deleted with this connection, so the demo leaves nothing on the broker.
        queue = Queue("", exchange=exchange, routing_key="#", exclusive=True, durable=False)

        def listen() -> None:
            while not ended.is_set():
                try:
                    connection.drain_events(timeout=0.2)
                except TimeoutError:
                    continue

        with Consumer(
            connection.channel(), [queue], on_message=events.take, no_ack=True, accept=None
        ):
            listener = Thread(target=listen, daemon=True)
            listener.start()
            try:
                yield events
            finally:
                ended.set()
                listener.join()
