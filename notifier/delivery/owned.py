"""A queue that this process owns."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from notifier.delivery.endpoint_queue import DueQueue
from notifier.delivery.endpoints import ReadyEndpoint
from notifier.delivery.lanes import Member
from notifier.delivery.work import EndpointState, QueueState
from schemas.ids import DeliveryId, TenantId, WebhookId
from schemas.lifecycle import DisabledReason, DiscardReason


@dataclass(eq=False, kw_only=True, slots=True)
class OwnedQueue:
    """A queue that this process owns.

    Attributes:
        endpoint: None until it is read, and while it is read again after a change.
        member: its place in the lanes, from the first reading of the endpoint.
        active_at: when it was last at work, in seconds of a monotonic clock.
        is_leaving: it is being given back.
        url: of the endpoint when it was last read.
        disable_for: the endpoint is to be disabled.
        discard_for: nothing is attempted any more; pending deliveries are discarded.
        recorded: deliveries that were recorded while due ones are being read; None otherwise.
        next_due: when the next delivery in the table becomes due, as far as it is known.
    """

    queue: DueQueue
    failing_since: datetime | None
    failures: int
    active_at: float
    endpoint: ReadyEndpoint | None = None
    member: Member | None = None
    is_leaving: bool = False
    url: str | None = None
    disable_for: DisabledReason | None = None
    discard_for: DiscardReason | None = None
    recorded: set[DeliveryId] | None = None
    next_due: float | None = None
    due_timer: asyncio.TimerHandle | None = None
    pace_timer: asyncio.TimerHandle | None = None

    @property
    def webhook_id(self) -> WebhookId:
        return self.queue.webhook_id

    @property
    def tenant_id(self) -> TenantId:
        return self.queue.tenant_id

    def cancel_timers(self) -> None:
        for timer in (self.due_timer, self.pace_timer):
            if timer is not None:
                timer.cancel()

    @property
    def is_paused(self) -> bool:
        return self.endpoint is not None and self.endpoint.state is EndpointState.PAUSED

    def state(self, *, now: datetime, monotonic: float) -> QueueState:
        """Return what the next owner of the queue needs.

        Args:
            now: the database's time.
            monotonic: the same time on the clock of `pace`.
        """
        pace = self.queue.pace
        blocked_for = pace.blocked_until - monotonic
        return QueueState(
            webhook_id=self.webhook_id,
            tenant_id=self.tenant_id,
            blocked_until=now + timedelta(seconds=blocked_for) if blocked_for > 0 else None,
            throttles=pace.throttles,
            failing_since=self.failing_since,
            failures=self.failures,
        )
