"""Celery eats CloudEvents from queues it does not own, and orders from the clock.

The wire carries no Celery headers that count. A message is checked before the
worker sees it, and its headers are built here, so nothing a publisher writes can
reach Celery's own header handling: with the stock consumer an undecodable body
is acknowledged and lost, and a header such as ``timelimit: "x"`` ends the worker.

Which of the two a message has to be is decided by the queue it was taken from.
On the work queues everything is an event. On the maintenance queue everything
is an order of beat's; it may name a task, and nothing else of it is read.

These are semi-public hooks of Celery, unchanged from 5.5 to 5.7;
`tests/integration/pipeline/test_hostile_messages.py` guards them.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final
from uuid import uuid4

import msgspec
import structlog
from celery.utils.log import get_logger
from celery.worker.consumer.consumer import Consumer
from kombu.message import Message
from kombu.serialization import register

from schemas.events import envelope
from schemas.events.envelope import Envelope, MalformedEvent
from schemas.runtime.logging import TRACEPARENT_HEADER
from schemas.topology import ATTEMPT_HEADER, CRASHES_HEADER, MAINTENANCE, WAITS_HEADER

log = structlog.stdlib.get_logger(__name__)
celery_log = get_logger(__name__)

DELIVERY_HEADER = "waybill"
SERIALIZER = "cloudevents"

ATTEMPTS_BELIEVED = 10_000
"""Counters on the wire beyond this are noise, not counters."""

ORDER_CONTENT_TYPE: Final = "application/json"
NO_ARGUMENTS: Final = (
    '[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
)
"""The body of a Celery message that calls a task with nothing."""


class StartsNothing(ValueError):
    """The message is well-formed, but there is no task here that it may start."""


class ReceivedEvent(msgspec.Struct, frozen=True):
    """An event with the bytes it came as, so that it can be passed on unchanged."""

    envelope: Envelope
    body: bytes


def _counter(value: object) -> int:
    plausible = isinstance(value, int) and 0 <= value <= ATTEMPTS_BELIEVED
    return value if plausible and isinstance(value, int) else 0


def _bytes(body: str | bytes | memoryview | None) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def _load(body: str | bytes) -> tuple[tuple[()], dict[str, ReceivedEvent], dict[str, None]]:
    raw = _bytes(body)
    event = ReceivedEvent(envelope=envelope.decode(raw), body=raw)
    return (), {"event": event}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def _dump(_: object) -> str:
    raise TypeError("tasks here are started by events, never by apply_async")


def register_serializer() -> None:
    """Let kombu read `application/cloudevents+json` bodies."""
    register(SERIALIZER, _dump, _load, content_type=envelope.CONTENT_TYPE, content_encoding="utf-8")


def _read(message: Message) -> Envelope:
    content_type = (message.content_type or "").partition(";")[0].strip().lower()
    if content_type != envelope.CONTENT_TYPE:
        raise MalformedEvent(f"content type {message.content_type!r}")
    if (message.content_encoding or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise MalformedEvent(f"content encoding {message.content_encoding!r}")
    return envelope.decode(_bytes(message.body))


class EventConsumer(Consumer):
    """The worker's consumer; `tasks` and `orders` are set before it consumes.

    Every message it cannot hand to a task is rejected without requeue. The work
    queues dead-letter it: nothing is lost and nothing loops. The maintenance
    queue drops it, since the clock will order again.

    Attributes:
        tasks: which task an event starts, per queue.
        orders: the tasks that may be ordered.
    """

    tasks: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    orders: ClassVar[frozenset[str]] = frozenset()

    connection_errors: tuple[type[BaseException], ...]
    task_consumer: Any  # kombu's, made anew with every connection

    class Blueprint(Consumer.Blueprint):  # type: ignore[valid-type, misc]  # a class, declared as a variable by its stubs
        # DelayedDelivery would declare 28 queues of its own; Mingle and Gossip
        # need transient queues, which newer brokers refuse.
        default_steps: ClassVar[list[str]] = [
            step
            for step in Consumer.Blueprint.default_steps
            if not step.endswith((":DelayedDelivery", ":Mingle", ":Gossip", ":Agent"))
        ]

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        # The stock method acknowledges, and the message is gone.
        self._refuse(message, queue=self._queue_of(message), reason=str(exc))

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:  # noqa: ANN401  # Celery's own signature
        hand_over = super().create_task_handler(*args, **kwargs)

        def on_message(message: Message) -> None:
            queue = self._queue_of(message)
            if queue is None:
                # Delivered for a subscription that has ended; it is for the next one.
                message.reject_log_error(celery_log, self.connection_errors, requeue=True)
                return
            try:
                if queue == MAINTENANCE:
                    self._rewrite_order(message)
                else:
                    self._rewrite_event(message, tasks=self.tasks.get(queue, {}))
            except (MalformedEvent, StartsNothing) as error:
                self._refuse(message, queue=queue, reason=str(error))
                return
            try:
                hand_over(message)
            except self.connection_errors:
                raise
            except Exception:
                log.exception(
                    "intake.hand_over_failed",
                    message_id=message.headers["id"],
                    task=message.headers["task"],
                )
                if not message.acknowledged:
                    self._refuse(message, queue=queue, reason="could not be handed to the pool")

        return on_message

    def _queue_of(self, message: Message) -> str | None:
        # Not the routing key, which is the publisher's own: the broker says by
        # this tag which of our subscriptions the message was delivered for.
        tag = message.delivery_info.get("consumer_tag")
        subscriptions: Mapping[str, str] = self.task_consumer._active_tags  # noqa: SLF001  # kombu keeps them nowhere else
        return next((queue for queue, known in subscriptions.items() if known == tag), None)

    def _rewrite_event(self, message: Message, *, tasks: Mapping[str, str]) -> None:
        event = _read(message)
        if event.type not in tasks:
            raise StartsNothing(f"no task here for event type {event.type!r}")
        wire: Mapping[str, object] = message.headers or {}
        message.headers = self._headers(event, task=tasks[event.type], wire=wire)

    def _rewrite_order(self, message: Message) -> None:
        task = (message.headers or {}).get("task")
        if message.content_type != ORDER_CONTENT_TYPE or not isinstance(task, str):
            raise StartsNothing(f"no order: content type {message.content_type!r}")
        if task not in self.orders:
            raise StartsNothing(f"no order: task {task!r}")
        order_id = str(uuid4())
        message.headers = {"lang": "py", "task": task, "id": order_id, "root_id": order_id}
        message.body = NO_ARGUMENTS
        message.content_encoding = "utf-8"

    @staticmethod
    def _headers(event: Envelope, *, task: str, wire: Mapping[str, object]) -> dict[str, Any]:
        attempt = _counter(wire.get(ATTEMPT_HEADER))
        traceparent = wire.get(TRACEPARENT_HEADER)
        return {
            "lang": "py",
            "task": task,
            "id": str(event.id),
            "root_id": str(event.id),
            "argsrepr": "()",
            "kwargsrepr": f"<{event.type} {event.subject}>",
            "retries": attempt,
            DELIVERY_HEADER: {
                "attempt": attempt,
                "crashes": _counter(wire.get("x-delivery-count"))
                + _counter(wire.get(CRASHES_HEADER)),
                "waits": _counter(wire.get(WAITS_HEADER)),
                "traceparent": traceparent if isinstance(traceparent, str) else None,
            },
        }

    def _refuse(self, message: Message, *, queue: str | None, reason: str) -> None:
        log.error(
            "intake.order_dropped" if queue == MAINTENANCE else "intake.dead_lettered",
            queue=queue,
            reason=reason,
            message_id=message.properties.get("message_id"),
        )
        message.reject_log_error(celery_log, self.connection_errors)
