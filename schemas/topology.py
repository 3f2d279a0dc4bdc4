"""Exchanges, queues and bindings, as values.

Every process that uses the broker declares all of them at its start; this is
idempotent. The arguments of a queue are part of its identity: the broker
refuses a declaration with other arguments, so what operators tune (consumer
timeouts, lengths) belongs in policies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final, Literal

from schemas.events.batches import BatchCancelled, BatchCompleted, BatchFailed
from schemas.events.documents import DocumentFailed, DocumentScanned, IngestedEvent
from schemas.events.endpoints import EndpointDisabled, Ping
from schemas.events.exports import ExportCompleted, ExportFailed
from schemas.events.uploads import StoredEvent, UploadCancelled, UploadFailed, UploadFinalized
from schemas.queues import (
    BATCH_PROCESSING,
    DOCUMENT_PROCESSING,
    EXPORTS,
    METADATA_EXTRACTION,
    NOTIFY,
    OCR_PROCESSING,
    SEARCH_INDEXING,
    UPLOADS,
)

ATTEMPT_HEADER: Final = "x-waybill-attempt"
"""Attempts of this event so far; set while the event waits in a retry tier."""

CRASHES_HEADER: Final = "x-waybill-crashes"
"""Crash count of this event before it last waited in a retry tier.

The broker counts the deliveries of one message only, and each wait makes a new message.
"""

WAITS_HEADER: Final = "x-waybill-waits"
"""Long waits so far, capped at the number of tiers; selects the next tier. Not counted as an attempt."""

CRASH_LIMIT: Final = 5
"""Crash count at which the task fails the event and records the reason."""

DELIVERY_LIMIT: Final = 10
"""Deliveries after which the broker dead-letters an event that kills its worker before the task can fail it."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    name: str
    kind: Literal["topic", "fanout", "direct"]
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Queue:
    name: str
    arguments: Mapping[str, str | int]


@dataclass(frozen=True, kw_only=True)
class Binding:
    exchange: str
    queue: str
    routing_key: str


EVENTS: Final = Exchange(
    name="waybill.events",
    kind="topic",
    # Without this queue, an event without a bound queue would be lost; in it, an operator finds the
    # event.
    arguments={"alternate-exchange": "waybill.unrouted"},
)
UNROUTED: Final = Exchange(name="waybill.unrouted", kind="fanout")
DEAD_LETTERS: Final = Exchange(name="waybill.dlx", kind="direct")


MAINTENANCE: Final = "maintenance"
"""Messages of the periodic tasks. They are not events: they name a task and have no data."""

SEARCH_MAINTENANCE: Final = "search_maintenance"
"""Messages of the periodic task that makes vectors of documents that are there already.

Its own queue: only the workers of `search_indexing` load a model, which takes memory.
"""

PERIODIC_QUEUES: Final = (MAINTENANCE, SEARCH_MAINTENANCE)
"""Queues whose messages name a periodic task."""

MAINTENANCE_LENGTH: Final = 20
"""Messages of periodic tasks that are kept while no worker consumes them; all of them are alike."""

WORK_QUEUES: Final = (
    UPLOADS,
    DOCUMENT_PROCESSING,
    METADATA_EXTRACTION,
    OCR_PROCESSING,
    BATCH_PROCESSING,
    SEARCH_INDEXING,
    EXPORTS,
)
"""Queues of steps. The event of a step is published to its queue alone, when the step is released."""

SUBSCRIPTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        NOTIFY: (
            StoredEvent.TYPE,
            UploadFailed.TYPE,
            UploadCancelled.TYPE,
            DocumentScanned.TYPE,
            IngestedEvent.TYPE,
            DocumentFailed.TYPE,
            ExportCompleted.TYPE,
            ExportFailed.TYPE,
            BatchCompleted.TYPE,
            BatchFailed.TYPE,
            BatchCancelled.TYPE,
            EndpointDisabled.TYPE,
        ),
    },
)
"""The types of events that each queue receives from the exchange of events."""

DELIVERED: Final = (*SUBSCRIPTIONS[NOTIFY], Ping.TYPE)
"""The types of events that an endpoint receives; a ping does not pass the exchange."""

CONSUMED: Final = (*WORK_QUEUES, *SUBSCRIPTIONS)
"""Queues with a dead-letter queue."""

OBSOLETE_BINDINGS: Final = (
    (UPLOADS, UploadFinalized.TYPE),
    (UPLOADS, UploadCancelled.TYPE),
    (DOCUMENT_PROCESSING, StoredEvent.TYPE),
)
"""Queue and routing key of bindings of earlier versions; they would deliver every step twice."""


@dataclass(frozen=True, kw_only=True)
class RetryTier:
    """A queue in which messages of all work queues wait for a retry.

    A message is published to the tier's exchange with the name of its work
    queue as routing key. After the delay the broker dead-letters it with the
    same key to the default exchange, which routes it to that queue alone.
    """

    delay: timedelta

    @property
    def name(self) -> str:
        return f"waybill.retry.{int(self.delay.total_seconds())}s"


RETRY_TIERS: Final = (
    RetryTier(delay=timedelta(seconds=5)),
    RetryTier(delay=timedelta(seconds=30)),
    RetryTier(delay=timedelta(minutes=5)),
)


def dead_letter_queue(queue: str) -> str:
    return f"{queue}.dlq"


def _work_queue(name: str) -> Queue:
    return Queue(
        name=name,
        arguments={
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": DEAD_LETTERS.name,
            "x-dead-letter-routing-key": name,
            # At-least-once dead-lettering requires reject-publish. At-most-once
            # loses the message if the broker dies between the two queues.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": DELIVERY_LIMIT,
        },
    )


def _retry_queue(tier: RetryTier) -> Queue:
    return Queue(
        name=tier.name,
        arguments={
            "x-queue-type": "quorum",
            "x-message-ttl": int(tier.delay.total_seconds() * 1000),
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


EXCHANGES: Final = (
    UNROUTED,
    EVENTS,
    DEAD_LETTERS,
    *(Exchange(name=tier.name, kind="fanout") for tier in RETRY_TIERS),
)

QUEUES: Final = (
    *(_work_queue(name) for name in CONSUMED),
    *(
        Queue(name=dead_letter_queue(name), arguments={"x-queue-type": "quorum"})
        for name in CONSUMED
    ),
    *(_retry_queue(tier) for tier in RETRY_TIERS),
    *(
        Queue(
            name=name,
            arguments={
                "x-queue-type": "quorum",
                "x-max-length": MAINTENANCE_LENGTH,
                "x-overflow": "drop-head",
                "x-delivery-limit": DELIVERY_LIMIT,
            },
        )
        for name in PERIODIC_QUEUES
    ),
    # Drained into the table `dead_letters`; the length bounds it while no deliverer runs.
    Queue(
        name=UNROUTED.name,
        arguments={
            "x-queue-type": "quorum",
            "x-max-length": 10_000,
            "x-overflow": "drop-head",
        },
    ),
)

BINDINGS: Final = (
    *(
        Binding(exchange=EVENTS.name, queue=queue, routing_key=event_type)
        for queue, event_types in SUBSCRIPTIONS.items()
        for event_type in event_types
    ),
    *(
        Binding(exchange=DEAD_LETTERS.name, queue=dead_letter_queue(queue), routing_key=queue)
        for queue in CONSUMED
    ),
    *(Binding(exchange=tier.name, queue=tier.name, routing_key="") for tier in RETRY_TIERS),
    Binding(exchange=UNROUTED.name, queue=UNROUTED.name, routing_key=""),
)


def is_published(event_type: str) -> bool:
    """Return whether the exchange of events has a queue for this type of events."""
    return any(event_type in event_types for event_types in SUBSCRIPTIONS.values())
