"""The worker's consumer: takes CloudEvents from the work queues, and periodic tasks from beat.

Nothing that a publisher writes reaches Celery's own header handling. The
consumer checks each message before the worker sees it, and builds Celery's
headers itself. The stock consumer acknowledges an undecodable body, which loses
the message, and a header such as ``timelimit: "x"`` ends the worker.

The queue decides what a message must be. On the work queues every message is an
event. On the two maintenance queues every message names a periodic task; the rest of the message is
ignored.

These hooks of Celery are semi-public and unchanged from 5.5 to 5.7;
`tests/integration/pipeline/test_hostile_messages.py` guards them.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final
from uuid import uuid4

import msgspec
import structlog
from celery.utils.log import get_logger
from celery.worker.consumer.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu import Connection
from kombu.exceptions import KombuError
from kombu.message import Message
from kombu.serialization import register

from pipeline.messaging.broker import declare_topology
from schemas.events import envelope
from schemas.events.envelope import Envelope, MalformedEvent
from schemas.runtime import outages
from schemas.runtime.lasting_problem import LastingProblem
from schemas.runtime.tracing import TRACEPARENT_HEADER
from schemas.topology import ATTEMPT_HEADER, CRASHES_HEADER, PERIODIC_QUEUES, WAITS_HEADER

log = structlog.stdlib.get_logger(__name__)
celery_log = get_logger(__name__)

DELIVERY_HEADER = "waybill"
SERIALIZER = "cloudevents"

COUNTER_MAX = 10_000
"""A larger counter on the wire is not a counter; it is read as 0."""

PERIODIC_CONTENT_TYPE: Final = "application/json"
NO_ARGUMENTS: Final = (
    '[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
)
"""The body of a Celery message that calls a task without arguments."""


CONNECT_PAUSE: Final = 1
CONNECT_PAUSE_MAX: Final = 5
"""Seconds between attempts to connect; also bounds how late work resumes after a restart."""

_broker_missing: Final = LastingProblem()


class NoTaskToStart(ValueError):
    """The message is well-formed, but this worker has no task that it may start."""


class ReceivedEvent(msgspec.Struct, frozen=True):
    """An event and its received bytes: a retry publishes the same bytes."""

    envelope: Envelope
    body: bytes


def _counter(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value <= COUNTER_MAX else 0


def _load(body: str | bytes) -> tuple[tuple[()], dict[str, ReceivedEvent], dict[str, None]]:
    raw = body.encode() if isinstance(body, str) else bytes(body)
    event = ReceivedEvent(envelope=envelope.decode(raw), body=raw)
    return (), {"event": event}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def _dump(_: object) -> str:
    raise TypeError("events start the tasks; apply_async is not supported")


def register_serializer() -> None:
    """Make kombu decode `application/cloudevents+json` bodies."""
    register(SERIALIZER, _dump, _load, content_type=envelope.CONTENT_TYPE, content_encoding="utf-8")


def read_event(message: Message) -> Envelope:
    """Check and decode a message; the result is cached in the message, where Celery finds it.

    Raises:
        MalformedEvent: the message is not a CloudEvent.
    """
    content_type = (message.content_type or "").partition(";")[0].strip().lower()
    if content_type != envelope.CONTENT_TYPE:
        raise MalformedEvent(f"content type {message.content_type!r}")
    if (message.content_encoding or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise MalformedEvent(f"content encoding {message.content_encoding!r}")
    if not message.body:
        raise MalformedEvent("no body")  # kombu would not call `_load`
    # kombu accepts no parameters such as `charset`.
    message.content_type = envelope.CONTENT_TYPE
    try:
        _, arguments, _ = message.payload
    except KombuError as error:
        if error.args and isinstance(error.args[0], MalformedEvent):  # kombu wraps `_load`'s error
            raise error.args[0] from None
        raise MalformedEvent(str(error)) from error
    event: ReceivedEvent = arguments["event"]
    return event.envelope


class EventConsumer(Consumer):
    """Hands each message to a task, or rejects it without requeue.

    A work queue dead-letters a rejected message, so that nothing is lost and
    nothing loops. The maintenance queue drops it, because beat will send it again.

    `task_routes.route` sets both attributes before the worker consumes.

    Attributes:
        tasks: queue → event type → task name.
        periodic_tasks: names of the tasks that beat may start.
        received: messages received so far, by queue.
    """

    tasks: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    periodic_tasks: ClassVar[frozenset[str]] = frozenset()

    connection_errors: tuple[type[BaseException], ...]
    task_consumer: Any  # kombu's; every connection has its own

    class Blueprint(Consumer.Blueprint):  # type: ignore[valid-type, misc]  # a class, declared as a variable by its stubs
        # DelayedDelivery declares 28 queues of its own. Mingle and Gossip need
        # transient queues, which newer brokers refuse.
        default_steps: ClassVar[list[str]] = [
            step
            for step in Consumer.Blueprint.default_steps
            if not step.endswith((":DelayedDelivery", ":Mingle", ":Gossip", ":Agent"))
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # Celery's own signature
        self.received: Counter[str] = Counter()
        super().__init__(*args, **kwargs)

    def connect(self) -> Connection:
        """Declare the topology, then connect; called at the start and after each lost connection.

        A subscription also ends when its queue is deleted, or when the broker lost its data.
        Without the queue the worker would end.
        """
        with self.connection_for_write() as connection:
            declare_topology(connection)
        return super().connect()

    def ensure_connected(self, conn: Connection) -> Connection:
        """Wait until a broker accepts the connection; log each attempt once.

        Celery's own method logs attempts as errors, and raises at once if the broker refuses, for
        example while it restores its virtual hosts: the worker would repeat it without a pause.
        """

        def log_attempt(error: BaseException, wait: float) -> None:
            level = logging.ERROR if _broker_missing.met() else logging.WARNING
            log.log(level, "broker.unreachable", reason=outages.describe(error), retry_seconds=wait)

        while True:
            try:
                connected = conn.ensure_connection(
                    log_attempt,
                    interval_start=CONNECT_PAUSE,
                    interval_step=CONNECT_PAUSE,
                    interval_max=CONNECT_PAUSE_MAX,
                    callback=maybe_shutdown,
                )
            except self.connection_errors as error:
                log_attempt(error, CONNECT_PAUSE_MAX)
                conn.close()
                for _ in range(CONNECT_PAUSE_MAX):
                    maybe_shutdown()
                    time.sleep(1)
            else:
                _broker_missing.solved()
                self.first_connection_attempt = False
                return connected

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        # Celery's own method logs an error. The attempts to connect again are logged.
        log.warning("broker.connection_lost", reason=outages.describe(exc))

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        # The stock method acknowledges, which loses the message.
        self._refuse(message, queue=self.queue_of(message), reason=str(exc))

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:  # noqa: ANN401  # Celery's own signature
        hand_over = super().create_task_handler(*args, **kwargs)

        def on_message(message: Message) -> None:
            queue = self.queue_of(message)
            if queue is None:
                # The subscription has ended; the broker delivers the message to another one.
                message.reject_log_error(celery_log, self.connection_errors, requeue=True)
                return
            self.received[queue] += 1
            try:
                if queue in PERIODIC_QUEUES:
                    self._rewrite_periodic(message)
                else:
                    self._rewrite_event(message, tasks=self.tasks.get(queue, {}))
            except (MalformedEvent, NoTaskToStart) as error:
                self._refuse(message, queue=queue, reason=str(error))
                return
            try:
                hand_over(message)
            except self.connection_errors:
                raise
            except Exception:
                log.exception(
                    "consumer.hand_over_failed",
                    message_id=message.headers["id"],
                    task=message.headers["task"],
                )
                if not message.acknowledged:
                    self._refuse(message, queue=queue, reason="could not be handed to the pool")

        return on_message

    def queue_of(self, message: Message) -> str | None:
        """Return the queue of a message; None if its subscription has ended."""
        # Not the routing key, which the publisher chooses. The broker sets the consumer
        # tag, which names the subscription.
        tag = message.delivery_info.get("consumer_tag")
        subscriptions: Mapping[str, str] = self.task_consumer._active_tags  # noqa: SLF001  # kombu has no public access to them
        return next((queue for queue, known in subscriptions.items() if known == tag), None)

    def _rewrite_event(self, message: Message, *, tasks: Mapping[str, str]) -> None:
        event = read_event(message)
        if event.type not in tasks:
            raise NoTaskToStart(f"no task for event type {event.type!r}")
        wire: Mapping[str, object] = message.headers or {}
        message.headers = self._headers(event, task=tasks[event.type], wire=wire)

    def _rewrite_periodic(self, message: Message) -> None:
        task = (message.headers or {}).get("task")
        if message.content_type != PERIODIC_CONTENT_TYPE or not isinstance(task, str):
            raise NoTaskToStart(f"no periodic task: content type {message.content_type!r}")
        if task not in self.periodic_tasks:
            raise NoTaskToStart(f"no periodic task: {task!r}")
        task_id = str(uuid4())
        message.headers = {"lang": "py", "task": task, "id": task_id, "root_id": task_id}
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
            "consumer.dropped" if queue in PERIODIC_QUEUES else "consumer.dead_lettered",
            queue=queue,
            reason=reason,
            message_id=message.properties.get("message_id"),
        )
        message.reject_log_error(celery_log, self.connection_errors)
