"""Celery eats CloudEvents from queues it does not own.

The wire carries no Celery headers. A message is checked before the worker sees
it, and its headers are built here, so nothing a publisher writes can reach
Celery's own header handling: with the stock consumer an undecodable body is
acknowledged and lost, and a header such as ``timelimit: "x"`` ends the worker.

These are semi-public hooks of Celery, unchanged from 5.5 to 5.7;
`tests/integration/pipeline/test_hostile_messages.py` guards them.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec
import structlog
from celery.utils.log import get_logger
from celery.worker.consumer.consumer import Consumer
from kombu.message import Message
from kombu.serialization import register

from schemas.events import envelope
from schemas.events.envelope import Envelope, MalformedEvent
from schemas.telemetry import TRACEPARENT_HEADER
from schemas.topology import ATTEMPT_HEADER, CRASHES_HEADER

log = structlog.get_logger(__name__)
celery_log = get_logger(__name__)

DELIVERY_HEADER = "waybill"
SERIALIZER = "cloudevents"

ATTEMPTS_BELIEVED = 10_000
"""Counters on the wire beyond this are noise, not counters."""


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
    msg = "tasks here are started by events, never by apply_async"
    raise TypeError(msg)


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
    """The worker's consumer; a subclass says which task an event starts.

    Every message it cannot hand to a task is rejected without requeue, which
    dead-letters it: nothing is lost and nothing loops.
    """

    tasks_by_event: ClassVar[Mapping[str, str]] = {}

    connection_errors: tuple[type[BaseException], ...]

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
        self._dead_letter(message, reason=str(exc))

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:  # noqa: ANN401  # Celery's own signature
        hand_over = super().create_task_handler(*args, **kwargs)

        def on_message(message: Message) -> None:
            try:
                event = _read(message)
                task = self.tasks_by_event[event.type]
            except MalformedEvent as error:
                self._dead_letter(message, reason=str(error))
                return
            except KeyError as error:
                self._dead_letter(message, reason=f"no task here for event type {error}")
                return
            wire: Mapping[str, object] = message.headers or {}
            message.headers = self._headers(event, task=task, wire=wire)
            try:
                hand_over(message)
            except self.connection_errors:
                raise
            except Exception:
                log.exception("intake.hand_over_failed", event_id=str(event.id), task=task)
                if not message.acknowledged:
                    self._dead_letter(message, reason="could not be handed to the pool")

        return on_message

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
                "traceparent": traceparent if isinstance(traceparent, str) else None,
            },
        }

    def _dead_letter(self, message: Message, *, reason: str) -> None:
        log.error(
            "intake.dead_lettered", reason=reason, message_id=message.properties.get("message_id")
        )
        message.reject_log_error(celery_log, self.connection_errors)
