"""The queues that this process owns: takes them, loads their due deliveries, and gives them back.

The database is asked for due deliveries in groups, in turns over tenants. An attempt of a delivery that
is in memory needs no further statement.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Never
from uuid import UUID

import structlog

from notifier import db
from notifier.delivery.closing import Closing
from notifier.delivery.endpoint_queue import DueQueue, Memory
from notifier.delivery.endpoints import EndpointCache, ReadyEndpoint
from notifier.delivery.fan_outs import FanOuts
from notifier.delivery.lanes import Lanes
from notifier.delivery.load_requests import Load, LoadRequests
from notifier.delivery.owned import OwnedQueue
from notifier.delivery.pacing import Pace
from notifier.delivery.work import (
    DueDelivery,
    EndpointState,
    FinishedAttempt,
    QueueState,
    ReceivedEvent,
    Recorded,
    Store,
)
from notifier.liveness import Pulse
from schemas.ids import DeliveryId, WebhookId
from schemas.lifecycle import DisabledReason, DiscardReason
from schemas.runtime import postgres

log = structlog.stdlib.get_logger(__name__)

HEARTBEAT: Final = timedelta(seconds=1)

ALIVE_FOR: Final = timedelta(seconds=4)
"""After a heartbeat, without a further one, attempts start for this time: others may take the queues
over a second later."""

TAKE_INTERVAL: Final = timedelta(seconds=1)
"""Longest delay of work for which no notification arrived."""

TAKE_PAUSE: Final = timedelta(milliseconds=5)
"""Notifications that are close together cause one look."""

TAKE_MAX: Final = 500
"""Queues of one statement, also of those that save them."""

READ_MAX: Final = 50
"""Endpoints that are read at once. To prepare the keys of fifty takes 2 ms, or 25 ms for ``v1a``, and the
attempts of all tenants wait."""

RELEASE_MAX: Final = 100
"""Queues of one statement; while it runs, no event is recorded."""

IDLE: Final = timedelta(seconds=10)
"""A queue with nothing to do for this time is given back. The first retry is after five seconds."""

REFILL: Final = 50
"""With fewer due deliveries in memory, a queue that has more in the table loads them."""

LOAD_PAUSE: Final = timedelta(milliseconds=50)
"""Before the next look for room in memory."""

OFFER_MAX: Final = 200
"""Deliveries that are taken into memory at once; it takes a few milliseconds."""

HOUSEKEEPING_INTERVAL: Final = timedelta(seconds=1)

REMIND_INTERVAL: Final = timedelta(minutes=1)
"""Between two looks for queues that nobody looks at; there is none, unless something went wrong."""


class OwnedQueues:
    """The queues of this process, and their due deliveries as far as they are in memory.

    Decides which deliveries may be attempted; `Dispatcher` attempts them.

    Attributes:
        closing: the queues whose deliveries are being discarded.
        alive_until: until then attempts may start, in seconds of the monotonic clock.
    """

    def __init__(
        self,
        *,
        store: Store,
        cache: EndpointCache,
        lanes: Lanes,
        fan_outs: FanOuts,
        pulse: Pulse,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        on_change_of: Callable[[OwnedQueue], None],
        on_ready: Callable[[], None],
    ) -> None:
        """Create an empty collection.

        Args:
            store: the deliveries in the database.
            cache: the endpoints that were read.
            lanes: where the queues wait for slots.
            fan_outs: of events to many endpoints.
            pulse: beats once per look for queues.
            clock: returns the database's time.
            monotonic: returns seconds that never go back.
            on_change_of: is called when a queue may have become able to start an attempt, or unable.
            on_ready: is called when attempts may be able to start.
        """
        self._store = store
        self._cache = cache
        self._lanes = lanes
        self._fan_outs = fan_outs
        self._pulse = pulse
        self._clock = clock
        self._monotonic = monotonic
        self._on_change_of = on_change_of
        self._on_ready = on_ready
        self.closing = Closing(store=store, on_closed=self._give_back_soon)
        self.alive_until = 0.0
        self._memory = Memory()
        self._owned: OrderedDict[WebhookId, OwnedQueue] = OrderedDict()  # longest idle first
        self._wake = db.WakeUp()
        self._loads = LoadRequests()
        self._wants_load = asyncio.Event()
        self._unread: set[WebhookId] = set()
        self._wants_endpoint = asyncio.Event()
        self._changed: dict[WebhookId, OwnedQueue] = {}
        # A queue that is given back must not get a delivery that this process attempts.
        self._ownership = asyncio.Lock()
        # The deliveries whose attempts were recorded while events are recorded.
        self._recorded_meanwhile: set[DeliveryId] | None = None
        self._remind_at = monotonic()

    def __getitem__(self, webhook_id: WebhookId) -> OwnedQueue:
        return self._owned[webhook_id]

    # What others call.

    async def record_events(self, events: Sequence[ReceivedEvent]) -> int:
        """Record a group of events, and attempt their deliveries; return how many are repeated."""
        async with self._ownership:
            # A load may find the deliveries first: some of them have been attempted then.
            self._recorded_meanwhile = set()
            try:
                recorded = await self._store.record_events(events)
                if recorded.has_fan_outs:
                    self._fan_outs.wake()
                await self._offer(recorded)
            finally:
                self._recorded_meanwhile = None
        return recorded.repeated

    def on_due(self, owner: str | None) -> None:
        """Look for due queues; `owner` is None if notifications may be lost."""
        if owner is None or owner in ("", self._store.owner):
            self._wake.call()

    def on_change(self, webhook_id: str | None) -> None:
        """Read an endpoint again; every endpoint if notifications may be lost (None)."""
        if webhook_id is None:
            self._cache.forget_all()
            for owned in self._owned.values():
                self._read_again(owned)
            return
        changed = WebhookId(UUID(webhook_id))
        self._cache.forget(changed)
        if (known := self._owned.get(changed)) is not None:
            self._read_again(known)

    def touch(self, owned: OwnedQueue) -> None:
        owned.active_at = self._monotonic()
        if owned.webhook_id in self._owned:
            self._owned.move_to_end(owned.webhook_id)

    def refill(self, owned: OwnedQueue) -> None:
        if owned.queue.more and owned.queue.due < REFILL and owned.recorded is None:
            self._request_load(owned)

    def disable(self, owned: OwnedQueue, reason: DisabledReason) -> None:
        if owned.discard_for is None and self._owned.get(owned.webhook_id) is owned:
            owned.disable_for = reason
            self._discard(owned, DiscardReason.ENDPOINT_DISABLED)

    def note_change(self, owned: OwnedQueue) -> None:
        if self._owned.get(owned.webhook_id) is owned:
            self._changed[owned.webhook_id] = owned

    def note_recorded(self, attempt: FinishedAttempt) -> None:
        """Forget a delivery whose attempt is in the database, and expect what follows from it."""
        delivery = attempt.delivery
        if self._recorded_meanwhile is not None:
            self._recorded_meanwhile.add(delivery.delivery_id)
        owned = self._owned.get(delivery.webhook_id)
        if owned is None:
            return
        owned.queue.known.discard(delivery.delivery_id)
        if owned.recorded is not None:
            owned.recorded.add(delivery.delivery_id)
        next_attempt_at = attempt.settlement.next_attempt_at
        if next_attempt_at is None:
            if delivery.ordered:
                # The next event of the upload is due now.
                self._request_load(owned)
        elif owned.discard_for is not None:
            self._discard(owned, owned.discard_for)
        else:
            self._expect(owned, next_attempt_at)

    # Loops.

    async def keep_alive(self) -> Never:
        began = 0.0

        async def beat() -> bool:
            nonlocal began
            began = self._monotonic()
            return await self._store.keep_alive()

        while True:
            if not await postgres.through_outages(beat, doing="a heartbeat"):
                if self._owned:
                    log.warning("delivery.queues_lost", queues=len(self._owned))
                for owned in list(self._owned.values()):
                    self._forget(owned)
                self._wake.call()
            self.alive_until = began + ALIVE_FOR.total_seconds()
            self._on_ready()
            elapsed = self._monotonic() - began
            await asyncio.sleep(max(HEARTBEAT.total_seconds() - elapsed, 0.1))

    async def take(self) -> Never:
        """Take due queues at each notification and each `TAKE_INTERVAL`."""
        while True:
            self._pulse.beat()
            states = await postgres.through_outages(
                partial(self._store.take, limit=TAKE_MAX), doing="taking queues"
            )
            for state in states:
                self._request_load(self._own(state))
            self._on_ready()
            if len(states) < TAKE_MAX:
                await asyncio.sleep(TAKE_PAUSE.total_seconds())
                await self._wake.wait(at_most=TAKE_INTERVAL)

    async def load(self) -> Never:
        while True:
            await self._wants_load.wait()
            load = self._loads.next()
            if load is None:
                if self._loads:
                    await asyncio.sleep(LOAD_PAUSE.total_seconds())
                else:
                    self._wants_load.clear()
                continue
            await self._load_now(load)

    async def _load_now(self, load: Load) -> None:
        owned_queues = [
            owned
            for queue in load.queues
            if (owned := self._owned.get(queue.webhook_id)) is not None and owned.queue is queue
        ]
        for owned in owned_queues:
            # The table may show a delivery as due whose attempt is recorded meanwhile.
            owned.recorded = set()
            owned.queue.more = False
            self._expect(owned, None)
        loaded = await postgres.through_outages(
            lambda: self._store.load(
                {owned.webhook_id: tuple(owned.queue.known) for owned in owned_queues},
                limit=load.limit,
            ),
            doing="reading due deliveries",
        )
        due: dict[WebhookId, list[DueDelivery]] = {}
        for delivery in loaded.due:
            due.setdefault(delivery.webhook_id, []).append(delivery)
        for owned in owned_queues:
            webhook_id = owned.webhook_id
            recorded, owned.recorded = owned.recorded or set(), None
            if self._owned.get(webhook_id) is not owned:
                continue
            if webhook_id in loaded.lost:
                log.warning("delivery.queue_lost", webhook_id=str(webhook_id))
                self._forget(owned)
                continue
            fresh = [each for each in due.get(webhook_id, ()) if each.delivery_id not in recorded]
            if owned.discard_for is None and not owned.is_paused:
                owned.queue.add(fresh)
                owned.queue.more = owned.queue.more or webhook_id in loaded.more
                for delivery in fresh:
                    self._check_version(owned, delivery)
                if fresh:
                    self.touch(owned)
            if (next_due := loaded.next_due.get(webhook_id)) is not None:
                self._expect(owned, next_due)
            self.refill(owned)
            self._on_change_of(owned)
        self._on_ready()

    async def read_endpoints(self) -> Never:
        while True:
            await self._wants_endpoint.wait()
            webhook_ids = [self._unread.pop() for _ in range(min(len(self._unread), READ_MAX))]
            if not webhook_ids:
                self._wants_endpoint.clear()
                continue
            self._cache.start_reading()
            read = await postgres.through_outages(
                partial(self._store.endpoints, webhook_ids), doing="reading endpoints"
            )
            self._unread |= self._cache.add(read)
            for webhook_id in webhook_ids:
                owned = self._owned.get(webhook_id)
                if owned is None or webhook_id in self._unread:
                    continue
                endpoint = self._cache.get(webhook_id)
                if endpoint is None:
                    log.error("delivery.endpoint_missing", webhook_id=str(webhook_id))
                    self._forget(owned)
                else:
                    self._use(owned, endpoint)
            self._on_ready()

    async def keep_house(self) -> Never:
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL.total_seconds())
            await self.save()
            await self._release()
            if self._monotonic() >= self._remind_at:
                self._remind_at = self._monotonic() + REMIND_INTERVAL.total_seconds()
                await postgres.through_outages(self._store.remind, doing="reminding of queues")

    async def save(self) -> None:
        while self._changed:
            changed = [self._changed.pop(each) for each in list(self._changed)[:TAKE_MAX]]
            await postgres.through_outages(
                partial(
                    self._store.save,
                    [
                        each.state(now=self._clock(), monotonic=self._monotonic())
                        for each in changed
                    ],
                ),
                doing="saving the state of queues",
            )

    async def _release(self) -> None:
        """Give back the queues that have nothing to do."""
        now = self._monotonic()
        idle: list[OwnedQueue] = []
        while len(idle) < RELEASE_MAX and self._owned:
            owned = next(iter(self._owned.values()))
            if owned.active_at + IDLE.total_seconds() > now:
                break
            self._owned.move_to_end(owned.webhook_id)
            if self._may_leave(owned, now=now):
                idle.append(owned)
            owned.active_at = now
        if not idle:
            return
        for owned in idle:
            owned.is_leaving = True
            self._on_change_of(owned)
        async with self._ownership:
            released = set(
                await postgres.through_outages(
                    lambda: self._store.release([owned.webhook_id for owned in idle]),
                    doing="giving queues back",
                )
            )
        for owned in idle:
            owned.is_leaving = False
            if self._owned.get(owned.webhook_id) is not owned:
                continue
            if owned.webhook_id in released:
                self._forget(owned)
            else:
                self._request_load(owned)

    def _may_leave(self, owned: OwnedQueue, *, now: float) -> bool:
        soon = now + IDLE.total_seconds()
        queue = owned.queue
        if owned.webhook_id in self.closing or owned.webhook_id in self._changed:
            return False
        is_blocked = queue.pace.blocked_until > soon
        if is_blocked or owned.is_paused or owned.discard_for is not None:
            if len(queue.known) > queue.due:
                # An attempt is under way; the others stay in memory, because nothing would load them.
                return False
            queue.forget_due()
            self._on_change_of(owned)
            return True
        if queue.known or queue.more or self._loads.has(queue) or owned.recorded is not None:
            return False
        return owned.next_due is None or owned.next_due > soon

    # Deliveries and endpoints.

    async def _offer(self, recorded: Recorded) -> None:
        """Take over what the store has recorded of a group of events.

        An event to thousands of endpoints must not stop the loop for as long as this takes.
        """
        for first in range(0, len(recorded.taken), OFFER_MAX):
            for state in recorded.taken[first : first + OFFER_MAX]:
                self._own(state)
            await asyncio.sleep(0)
        for first in range(0, len(recorded.due), OFFER_MAX):
            self._offer_due(recorded.due[first : first + OFFER_MAX])
            await asyncio.sleep(0)
        for webhook_id in recorded.unread:
            if (unread := self._owned.get(webhook_id)) is not None:
                self._request_load(unread)

    def _offer_due(self, due: Sequence[DueDelivery]) -> None:
        touched: dict[WebhookId, OwnedQueue] = {}
        for delivery in due:
            if delivery.delivery_id in (self._recorded_meanwhile or ()):
                continue
            owned = self._owned.get(delivery.webhook_id)
            if owned is None:
                # Its load shows whether the queue still belongs to this process.
                owned = self._own(
                    QueueState(webhook_id=delivery.webhook_id, tenant_id=delivery.tenant_id)
                )
                self._request_load(owned)
            self._add(owned, delivery)
            touched[delivery.webhook_id] = owned
        for each in touched.values():
            self.refill(each)
            self._on_change_of(each)
        self._on_ready()

    def _add(self, owned: OwnedQueue, delivery: DueDelivery) -> None:
        """Keep a new delivery in memory if there is room; the table has it in any case."""
        if owned.discard_for is not None:
            self._discard(owned, owned.discard_for)
        elif owned.queue.more or not owned.queue.room or owned.is_paused:
            owned.queue.more = True
        else:
            owned.queue.add((delivery,))
            self.touch(owned)
            self._check_version(owned, delivery)

    def _own(self, state: QueueState) -> OwnedQueue:
        owned = self._owned.get(state.webhook_id)
        if owned is not None:
            return owned
        now = self._monotonic()
        pace = Pace(throttles=state.throttles)
        if state.blocked_until is not None:
            pace.blocked_until = now + (state.blocked_until - self._clock()).total_seconds()
        owned = self._owned[state.webhook_id] = OwnedQueue(
            queue=DueQueue(
                webhook_id=state.webhook_id,
                tenant_id=state.tenant_id,
                memory=self._memory,
                pace=pace,
            ),
            failing_since=state.failing_since,
            failures=state.failures,
            active_at=now,
        )
        endpoint = self._cache.get(state.webhook_id)
        if endpoint is None:
            self._read_again(owned)
        else:
            self._use(owned, endpoint)
        return owned

    def _use(self, owned: OwnedQueue, endpoint: ReadyEndpoint) -> None:
        """Take over the options of an endpoint that was read."""
        is_enabled_again = (
            endpoint.state is EndpointState.ACTIVE
            and owned.discard_for is not None
            and owned.disable_for is None
        )
        if is_enabled_again or owned.url not in {None, endpoint.url}:
            self._forget_failures(owned)
        owned.endpoint = endpoint
        owned.url = endpoint.url
        owned.queue.pace.change_rate(endpoint.rate, now=self._monotonic())
        if owned.pace_timer is not None:
            # The new rate may allow a request earlier.
            owned.pace_timer.cancel()
            owned.pace_timer = None
        if owned.member is None:
            owned.member = self._lanes.join(
                endpoint.webhook_id,
                tenant_id=endpoint.tenant_id,
                receiver=endpoint.receiver,
                concurrency=endpoint.concurrency,
                is_failing=owned.failing_since is not None,
            )
        else:
            self._lanes.change(
                owned.member, receiver=endpoint.receiver, concurrency=endpoint.concurrency
            )
            self._request_load(owned)
        match endpoint.state:
            case EndpointState.ACTIVE:
                if owned.disable_for is None:
                    owned.discard_for = None
            case EndpointState.PAUSED:
                owned.queue.forget_due()
                self._give_back_soon(owned)
            case EndpointState.DISABLED:
                self._discard(owned, DiscardReason.ENDPOINT_DISABLED)
            case EndpointState.DELETED:
                self._discard(owned, DiscardReason.ENDPOINT_DELETED)
        self._on_change_of(owned)

    def _read_again(self, owned: OwnedQueue) -> None:
        owned.endpoint = None
        self._unread.add(owned.webhook_id)
        self._wants_endpoint.set()
        self._on_change_of(owned)

    def _check_version(self, owned: OwnedQueue, delivery: DueDelivery) -> None:
        if owned.endpoint is not None and delivery.version > owned.endpoint.version:
            self._cache.forget(owned.webhook_id)
            self._read_again(owned)

    def _forget_failures(self, owned: OwnedQueue) -> None:
        """Treat an endpoint as one that never failed, as the database does already.

        Otherwise the first failure after it was enabled would disable it again, and a new receiver
        would wait for the end of the pause that the earlier one asked for.
        """
        owned.failing_since, owned.failures = None, 0
        owned.queue.pace.blocked_until, owned.queue.pace.throttles = 0.0, 0
        # A state that was saved meanwhile has the failures of before.
        self.note_change(owned)

    def _discard(self, owned: OwnedQueue, reason: DiscardReason) -> None:
        owned.discard_for = reason
        owned.queue.forget_due()
        self._on_change_of(owned)
        self.closing.add(owned)

    def _forget(self, owned: OwnedQueue) -> None:
        """Drop a queue that this process does not own any more."""
        webhook_id = owned.webhook_id
        del self._owned[webhook_id]
        owned.cancel_timers()
        owned.queue.forget_due()
        self._loads.discard(owned.queue)
        self.closing.remove(webhook_id)
        self._changed.pop(webhook_id, None)
        if owned.member is not None:
            self._lanes.leave(owned.member)

    def _give_back_soon(self, owned: OwnedQueue) -> None:
        owned.active_at = float("-inf")
        if owned.webhook_id in self._owned:
            self._owned.move_to_end(owned.webhook_id, last=False)

    def _request_load(self, owned: OwnedQueue) -> None:
        self._loads.add(owned.queue)
        self._wants_load.set()

    def _expect(self, owned: OwnedQueue, due_at: datetime | None) -> None:
        """Load again when a delivery becomes due; None forgets what was expected."""
        if due_at is None:
            owned.next_due = None
            if owned.due_timer is not None:
                owned.due_timer.cancel()
                owned.due_timer = None
            return
        wait = max((due_at - self._clock()).total_seconds(), 0.0)
        at = self._monotonic() + wait
        if owned.next_due is None or at < owned.next_due:
            owned.next_due = at
            if owned.due_timer is not None:
                owned.due_timer.cancel()
            owned.due_timer = asyncio.get_running_loop().call_later(wait, self._on_due_time, owned)

    def _on_due_time(self, owned: OwnedQueue) -> None:
        owned.due_timer = None
        owned.next_due = None
        self._request_load(owned)
