"""What the store of deliveries and the dispatcher exchange."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from notifier.delivery.attempt import AttemptResult
from notifier.delivery.settlement import Settlement
from schemas.events.envelope import Envelope
from schemas.ids import DeliveryId, EventId, TenantId, UploadId, WebhookId
from schemas.lifecycle import DisabledReason, DiscardReason


class EndpointState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"
    DELETED = "deleted"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSecret:
    """A secret as the database has it; `webhook_secrets.decrypt` reads it."""

    secret: str = field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """The options of an endpoint, as they were at one version of its row.

    Attributes:
        headers: further headers of every request, encrypted; None without any.
        timeout, concurrency, rate: None for the settings' defaults.
        ordered: the events of an upload are delivered one after the other.
    """

    webhook_id: WebhookId
    tenant_id: TenantId
    version: int
    state: EndpointState
    url: str = field(repr=False)
    secrets: tuple[StoredSecret, ...]
    headers: str | None = field(default=None, repr=False)
    timeout: timedelta | None = None
    concurrency: int | None = None
    rate: float | None = None
    ordered: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueState:
    """What of an endpoint's condition outlives the process that owns its queue.

    Attributes:
        blocked_until: no attempt before; the endpoint asked for it, or throttles.
        throttles: throttling answers since the last success.
        failing_since: the first failure since the last success.
        failures: failed attempts since the last success.
    """

    webhook_id: WebhookId
    tenant_id: TenantId
    blocked_until: datetime | None = None
    throttles: int = 0
    failing_since: datetime | None = None
    failures: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DueDelivery:
    """A due delivery of a queue that this process owns.

    Attributes:
        version: the version of the endpoint's row when the delivery was read.
        only_refused: each earlier attempt was answered with a status of
            `settlement.REFUSALS`; true without an earlier attempt.
        body: the bytes of the event; None if the table of events does not have it.
        traceparent: the W3C trace context of the event.
    """

    delivery_id: DeliveryId
    webhook_id: WebhookId
    tenant_id: TenantId
    event_id: EventId
    event_type: str
    upload_id: UploadId | None
    version: int
    attempts_made: int
    ordered: bool
    body: bytes | None
    traceparent: str | None
    only_refused: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedEvent:
    envelope: Envelope
    body: bytes
    traceparent: str | None


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a group of events became.

    Attributes:
        repeated: events that were recorded before.
        taken: queues that this process owns since now.
        due: deliveries of the queues that this process owns; the rest belongs to other processes,
            or waits in order.
        unread: own queues with due deliveries that are not in `due`: ordered ones.
        has_fan_outs: an event gets its deliveries by `Store.fan_out`, because they are many.
    """

    repeated: int
    taken: Sequence[QueueState]
    due: Sequence[DueDelivery]
    unread: Collection[WebhookId]
    has_fan_outs: bool = False


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Due deliveries of some queues.

    Attributes:
        due: first attempts before retries, and the longest due first.
        more: queues that have more due deliveries than were asked for.
        next_due: when the first delivery that is not due yet will be; only queues that have one.
        lost: queues that another process owns now.
    """

    due: Sequence[DueDelivery]
    more: Collection[WebhookId]
    next_due: Mapping[WebhookId, datetime]
    lost: Collection[WebhookId]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedAttempt:
    """An attempt that is to be recorded.

    Attributes:
        request_headers: as they were sent, without secret values.
    """

    delivery: DueDelivery
    result: AttemptResult
    settlement: Settlement
    request_headers: Mapping[str, str] | None = None


class Store(Protocol):
    """The deliveries in the database, for one process. Every method is one short transaction, or a few."""

    @property
    def owner(self) -> str:
        """The id of this process as an owner of queues; notifications for its queues carry it."""
        ...

    async def keep_alive(self) -> bool:
        """Prove that this process is alive; others take its queues over once it did not for a while.

        Returns:
            False if the process counted as dead. It then owns no queue any more, and has a new
            `owner`, so that its earlier queues can be taken by any process.
        """
        ...

    async def record_events(self, events: Sequence[ReceivedEvent]) -> Recorded:
        """Add a delivery for each endpoint that subscribes to each event, once per event.

        Takes the queues that nobody owns, except those of paused endpoints, whose deliveries wait.
        Deliveries to disabled endpoints are discarded with the reason. Does not run beside
        `release`, which could give a queue back that has just got a delivery.
        """
        ...

    async def fan_out(self, *, after: TenantId | None) -> TenantId | None:
        """Add the next part of the deliveries of an event to many endpoints, and make their queues due.

        Args:
            after: the tenant whose event got the last part; the turn is the next tenant's.

        Returns:
            The tenant of the event; None if no event after that tenant waits for deliveries.
        """
        ...

    async def take(self, *, limit: int) -> Sequence[QueueState]:
        """Clear `due_at` of due queues, and return them.

        They are queues that no living process owned, which this process owns now, and own queues
        to which somebody else has added deliveries.
        """
        ...

    async def load(
        self, known: Mapping[WebhookId, Collection[DeliveryId]], *, limit: int
    ) -> Loaded:
        """Return due deliveries of own queues.

        A delivery that is attempted and recorded while this runs may be returned once more, if it
        was not in `known`. An ordered delivery is returned once those before it are settled, and an
        endpoint that is paused has no due deliveries.

        Args:
            known: for each queue, its deliveries that the process has in memory already.
            limit: most deliveries of each queue.
        """
        ...

    async def endpoints(self, webhook_ids: Collection[WebhookId]) -> Mapping[WebhookId, Endpoint]:
        """Return the options of endpoints as they are now; secrets that have not expired, newest first."""
        ...

    async def record(self, attempts: Sequence[FinishedAttempt]) -> Collection[DeliveryId]:
        """Log attempts and settle or reschedule their deliveries.

        The next delivery in order becomes due when the one before is settled; `load` returns it.

        Returns:
            The deliveries whose attempt was recorded. Of the others, another process recorded an
            attempt with the same number, or they were settled meanwhile.
        """
        ...

    async def save(self, states: Sequence[QueueState]) -> None:
        """Keep the condition of endpoints for the next owner."""
        ...

    async def release(self, webhook_ids: Collection[WebhookId]) -> Collection[WebhookId]:
        """Give queues back; return those given back. A queue with new due deliveries stays.

        The queue is due again with its next delivery, not before the end of a block; a queue of a
        paused endpoint is not due.
        """
        ...

    async def leave(self) -> None:
        """Give all queues back, and end the registration of this process."""
        ...

    async def remind(self) -> None:
        """Make queues due whose deliveries are due and that nobody looks at; call it every minute.

        A safety net: it finds what a bug, or a notification that is lost with its transaction's
        answer, has left behind.
        """
        ...

    async def disable(self, webhook_id: WebhookId, *, reason: DisabledReason) -> None:
        """Disable an endpoint, if it is not, and emit `endpoint.disabled`.

        The dispatcher discards its pending deliveries.
        """
        ...

    async def discard(
        self,
        webhook_id: WebhookId,
        *,
        reason: DiscardReason,
        keep: Collection[DeliveryId],
        limit: int,
    ) -> int:
        """Discard pending deliveries of an endpoint that is deleted or disabled; return how many.

        Args:
            webhook_id: the endpoint.
            reason: kept with the deliveries.
            keep: deliveries whose attempt is under way; its answer settles them.
            limit: most deliveries.
        """
        ...
