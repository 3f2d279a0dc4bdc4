"""The deliveries in memory instead of in PostgreSQL: `Tables`, and a `MemoryStore` for each process."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from notifier.delivery.work import (
    DueDelivery,
    Endpoint,
    EndpointState,
    FinishedAttempt,
    Loaded,
    QueueState,
    ReceivedEvent,
    Recorded,
    StoredSecret,
)
from schemas.ids import DeliveryId, EventId, TenantId, UploadId, WebhookId
from schemas.lifecycle import DeliveryStatus, DisabledReason, DiscardReason

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # a published test vector

TENANT = TenantId(uuid4())


@dataclass(kw_only=True)
class Row:
    delivery: DueDelivery
    due_at: datetime | None
    status: DeliveryStatus = DeliveryStatus.PENDING
    reason: DiscardReason | None = None
    attempts: list[FinishedAttempt] = field(default_factory=list)


@dataclass(kw_only=True)
class QueueRow:
    state: QueueState
    owner: str | None = None
    due_at: datetime | None = None


@dataclass
class Tables:
    """What all processes share. `clock` is the database's."""

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    rows: dict[DeliveryId, Row] = field(default_factory=dict)
    endpoints: dict[WebhookId, Endpoint] = field(default_factory=dict)
    queues: dict[WebhookId, QueueRow] = field(default_factory=dict)
    alive: dict[str, bool] = field(default_factory=dict)
    disabled: dict[WebhookId, DisabledReason] = field(default_factory=dict)

    def add_endpoint(
        self,
        *,
        tenant_id: TenantId = TENANT,
        url: str = "https://receiver.example/hook",
        secret: str = SECRET,
        concurrency: int | None = None,
        rate: float | None = None,
        state: EndpointState = EndpointState.ACTIVE,
        failing_since: datetime | None = None,
        timeout: timedelta | None = None,
    ) -> WebhookId:
        webhook_id = WebhookId(uuid4())
        self.endpoints[webhook_id] = Endpoint(
            webhook_id=webhook_id,
            tenant_id=tenant_id,
            version=1,
            state=state,
            url=url,
            secrets=(StoredSecret(secret=secret, expires_at=None),),
            concurrency=concurrency,
            rate=rate,
            timeout=timeout,
        )
        self.queues[webhook_id] = QueueRow(
            state=QueueState(
                webhook_id=webhook_id, tenant_id=tenant_id, failing_since=failing_since
            )
        )
        return webhook_id

    def change(self, webhook_id: WebhookId, **changes: object) -> None:
        endpoint = self.endpoints[webhook_id]
        self.endpoints[webhook_id] = replace(
            endpoint,
            version=endpoint.version + 1,
            **changes,  # type: ignore[arg-type]
        )

    def add(
        self,
        webhook_id: WebhookId,
        count: int = 1,
        *,
        upload_id: UploadId | None = None,
        attempts_made: int = 0,
        due_in: timedelta = timedelta(0),
        body: bytes | None = b"{}",
    ) -> list[DueDelivery]:
        """Add deliveries as another process's intake does: its queue becomes due."""
        endpoint = self.endpoints[webhook_id]
        added = [
            DueDelivery(
                delivery_id=DeliveryId(uuid4()),
                webhook_id=webhook_id,
                tenant_id=endpoint.tenant_id,
                event_id=EventId(uuid4()),
                event_type="upload.stored",
                upload_id=upload_id,
                version=endpoint.version,
                attempts_made=attempts_made,
                ordered=False,
                body=body,
                traceparent=None,
            )
            for _ in range(count)
        ]
        due_at = self.clock() + due_in
        for delivery in added:
            self.rows[delivery.delivery_id] = Row(delivery=delivery, due_at=due_at)
        queue = self.queues[webhook_id]
        queue.due_at = min(queue.due_at or due_at, due_at)
        return added

    def of(self, webhook_id: WebhookId) -> list[Row]:
        return [row for row in self.rows.values() if row.delivery.webhook_id == webhook_id]

    def is_settled(self) -> bool:
        return all(row.status is not DeliveryStatus.PENDING for row in self.rows.values())


class MemoryStore:
    """A `work.Store` of one process.

    Attributes:
        loads: the numbers of queues of the loads so far.
        is_down: every call waits, as during an outage.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.owner = str(uuid4())
        self.loads: list[int] = []
        self.groups: list[int] = []
        self.releases: list[WebhookId] = []
        self.next_events: Callable[[], Recorded]
        self.events_delay = asyncio.Event()
        self.events_delay.set()
        self.up = asyncio.Event()
        self.up.set()

    async def keep_alive(self) -> bool:
        await self.up.wait()
        if self.tables.alive.get(self.owner) is False:
            self.owner = str(uuid4())
            self.tables.alive[self.owner] = True
            return False
        self.tables.alive[self.owner] = True
        return True

    def die(self) -> None:
        """Let the process count as dead."""
        self.tables.alive[self.owner] = False

    def _is_mine(self, webhook_id: WebhookId) -> bool:
        return self.tables.queues[webhook_id].owner == self.owner

    def _is_free(self, queue: QueueRow) -> bool:
        return queue.owner is None or not self.tables.alive.get(queue.owner, False)

    async def record_events(self, _: Sequence[ReceivedEvent]) -> Recorded:
        """Return `next_events`, which stands for what the events become, after `events_delay`."""
        await self.events_delay.wait()
        return self.next_events()

    def receive(self, webhook_id: WebhookId, count: int = 1, **options: object) -> Recorded:
        """Add deliveries as this process's intake does, and return what is recorded."""
        queue = self.tables.queues[webhook_id]
        taken = []
        before = queue.due_at
        if self._is_free(queue):
            queue.owner = self.owner
            taken.append(queue.state)
        due = self.tables.add(webhook_id, count, **options)  # type: ignore[arg-type]
        queue.due_at = before
        unread = [webhook_id] if before is not None and taken else []
        return Recorded(repeated=0, taken=taken, due=due, unread=unread)

    async def fan_out(self, *, after: TenantId | None) -> TenantId | None:  # noqa: ARG002
        await self.up.wait()
        return None

    async def remind(self) -> None:
        await self.up.wait()

    async def take(self, *, limit: int) -> Sequence[QueueState]:
        await self.up.wait()
        now = self.tables.clock()
        taken = []
        for queue in self.tables.queues.values():
            mine = queue.owner == self.owner
            is_orphan = queue.owner is not None and self._is_free(queue)
            is_due = queue.due_at is not None and queue.due_at <= now
            if (is_due and (mine or self._is_free(queue))) or is_orphan:
                queue.owner, queue.due_at = self.owner, None
                taken.append(queue.state)
        return taken[:limit]

    async def load(
        self, known: Mapping[WebhookId, Collection[DeliveryId]], *, limit: int
    ) -> Loaded:
        await self.up.wait()
        self.loads.append(len(known))
        now = self.tables.clock()
        due: list[DueDelivery] = []
        more, next_due = [], {}
        lost = [each for each in known if not self._is_mine(each)]
        for webhook_id in known:
            pending = sorted(
                (
                    row
                    for row in self.tables.of(webhook_id)
                    if row.status is DeliveryStatus.PENDING
                    and row.due_at is not None
                    and row.delivery.delivery_id not in known[webhook_id]
                ),
                key=lambda row: (row.delivery.attempts_made > 0, row.due_at),
            )
            ready = [row for row in pending if row.due_at is not None and row.due_at <= now]
            due += [row.delivery for row in ready[:limit]]
            if len(ready) > limit:
                more.append(webhook_id)
            later = [row.due_at for row in pending if row.due_at is not None and row.due_at > now]
            if later:
                next_due[webhook_id] = min(later)
        await asyncio.sleep(0)
        return Loaded(due=due, more=more, next_due=next_due, lost=lost)

    async def endpoints(self, webhook_ids: Collection[WebhookId]) -> Mapping[WebhookId, Endpoint]:
        await self.up.wait()
        return {each: self.tables.endpoints[each] for each in webhook_ids}

    async def record(self, attempts: Sequence[FinishedAttempt]) -> Collection[DeliveryId]:
        await self.up.wait()
        self.groups.append(len(attempts))
        recorded = []
        for attempt in attempts:
            row = self.tables.rows[attempt.delivery.delivery_id]
            made = attempt.delivery.attempts_made
            if row.status is not DeliveryStatus.PENDING or row.delivery.attempts_made != made:
                continue
            row.delivery = replace(row.delivery, attempts_made=made + 1)
            row.status = attempt.settlement.status
            row.reason = attempt.settlement.reason
            row.due_at = attempt.settlement.next_attempt_at
            row.attempts.append(attempt)
            recorded.append(attempt.delivery.delivery_id)
        return recorded

    async def save(self, states: Sequence[QueueState]) -> None:
        await self.up.wait()
        for state in states:
            self.tables.queues[state.webhook_id].state = state

    async def release(self, webhook_ids: Collection[WebhookId]) -> Collection[WebhookId]:
        await self.up.wait()
        released = []
        for webhook_id in webhook_ids:
            queue = self.tables.queues[webhook_id]
            if queue.owner == self.owner and queue.due_at is None:
                queue.owner = None
                pending = [
                    row.due_at
                    for row in self.tables.of(webhook_id)
                    if row.status is DeliveryStatus.PENDING and row.due_at is not None
                ]
                if pending and self.tables.endpoints[webhook_id].state is EndpointState.ACTIVE:
                    queue.due_at = min(pending)
                released.append(webhook_id)
        self.releases += released
        return released

    async def leave(self) -> None:
        await self.up.wait()
        await self.release([each for each in self.tables.queues if self._is_mine(each)])
        self.tables.alive[self.owner] = False

    async def disable(self, webhook_id: WebhookId, *, reason: DisabledReason) -> None:
        await self.up.wait()
        self.tables.disabled[webhook_id] = reason
        self.tables.change(webhook_id, state=EndpointState.DISABLED)

    async def discard(
        self,
        webhook_id: WebhookId,
        *,
        reason: DiscardReason,
        keep: Collection[DeliveryId],
        limit: int,
    ) -> int:
        await self.up.wait()
        pending = [
            row
            for row in self.tables.of(webhook_id)
            if row.status is DeliveryStatus.PENDING and row.delivery.delivery_id not in keep
        ]
        for row in pending[:limit]:
            row.status, row.reason, row.due_at = DeliveryStatus.DISCARDED, reason, None
        return len(pending[:limit])
