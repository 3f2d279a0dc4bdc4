"""Listens in on the exchange: every event the demo causes, as any service could read it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import msgspec
from kombu import Connection, Consumer, Exchange, Queue
from kombu.message import Message

from schemas import topology


@contextmanager
def tapped(rabbitmq_url: str) -> Iterator[list[dict[str, Any]]]:
    """Collect the events published while the block runs, in order of arrival."""
    seen: list[dict[str, Any]] = []
    ended = Event()

    def take(body: Any, message: Message) -> None:  # noqa: ANN401, ARG001  # kombu's own signature
        seen.append(msgspec.json.decode(message.body or b"null"))

    with Connection(rabbitmq_url) as connection:
        events = Exchange(topology.EVENTS.name, type=topology.EVENTS.kind, no_declare=True)
        # Exclusive: it goes with this connection, so the demo leaves nothing on the broker.
        queue = Queue("", exchange=events, routing_key="#", exclusive=True, durable=False)

        def listen() -> None:
            while not ended.is_set():
                try:
                    connection.drain_events(timeout=0.2)
                except TimeoutError:
                    continue

        with Consumer(connection.channel(), [queue], callbacks=[take], no_ack=True, accept=None):
            listener = Thread(target=listen, daemon=True)
            listener.start()
            try:
                yield seen
            finally:
                ended.set()
                listener.join()
