"""The engine: owns queues, attempts their due deliveries, and records the attempts.

A process is at work on the deliveries of an endpoint while it owns the endpoint's queue. All
decisions are made in memory: a delivery costs no statement of its own. The database is asked for due
deliveries in groups, and gets attempts in groups; no transaction is open during a POST.

The deliveries of a process that dies are attempted again by the next owner of their queues, under
the same message id.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Never
from uuid import UUID

import structlog

from notifier import db
from notifier.delivery import sending, settlement
from notifier.delivery.attempt import AttemptResult
from notifier.delivery.endpoint_queue import FOLLOWER_WAIT, DueQueue, Memory
from notifier.delivery.endpoints import EndpointCache, ReadyEndpoint
from notifier.delivery.fan_outs import FanOuts
from notifier.delivery.lanes import QUICK, Lanes, Member, Reaction, Slot
from notifier.delivery.load_requests import Load, LoadRequests
from notifier.delivery.outcome import AttemptOutcome
from notifier.delivery.pacing import Pace
from notifier.delivery.recorder import Recorder
from notifier.delivery.sending import Post
from notifier.delivery.settlement import Schedule, Settlement
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
from notifier.loops import run_together
from schemas.ids import DeliveryId, TenantId, WebhookId
from schemas.key_ring import KeyRing
from schemas.lifecycle import DisabledReason, DiscardReason
from schemas.runtime import postgres
from schemas.settings import DeliverySettings
from schemas.tables import deliveries, webhooks

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

AGE_INTERVAL: Final = timedelta(milliseconds=50)
"""Between two looks for attempts that are slow."""

OFFER_MAX: Final = 200
"""Deliveries that are taken into memory at once; it takes a few milliseconds."""

HOUSEKEEPING_INTERVAL: Final = timedelta(seconds=1)

REMIND_INTERVAL: Final = timedelta(minutes=1)
"""Between two looks for queues that nobody looks at; there is none, unless something went wrong."""

DISCARD_MAX: Final = 1_000
"""Deliveries of one statement."""

RECORDING_GRACE: Final = timedelta(seconds=10)
"""At a stop: time for the last attempts to be recorded after their timeout."""

_UNREACHED: Final = frozenset(
    {
        AttemptOutcome.TIMED_OUT,
        AttemptOutcome.UNREACHABLE,
        AttemptOutcome.NAME_UNRESOLVED,
        AttemptOutcome.TLS_FAILED,
    }
)
# Faults of this side: an endpoint is not disabled for them.
_OWN_FAULTS: Final = frozenset(
    {
        AttemptOutcome.SECRET_UNREADABLE,
        AttemptOutcome.NOT_ATTEMPTED,
        AttemptOutcome.EVENT_MISSING,
    }
)


@dataclass(eq=False, kw_only=True, slots=True)
class _Owned:
    """A queue that this process owns.

    Attributes:
        endpoint: None until it is read, and while it is read again after a change.
        member: its place in the lanes, from the first reading of the endpoint.
        active_at: when it was last at work.
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


@dataclass(eq=False, kw_only=True, slots=True)
class _UnderWay:
    owned: _Owned
    endpoint: ReadyEndpoint
    delivery: DueDelivery
    slot: Slot
    began: float
    has_ended: bool = False


class Dispatcher:
    """Attempts the due deliveries of the queues that this process owns."""

    def __init__(
        self,
        *,
        store: Store,
        post: Post,
        pulse: Pulse,
        settings: DeliverySettings,
        keys: KeyRing,
        clock: Callable[[], datetime],
        jitter: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a dispatcher.

        Args:
            store: the deliveries in the database.
            post: `attempt.post` with its client.
            pulse: beats once per look for queues.
            settings: the schedule, timeouts and sizes.
            keys: decrypt the secrets of the endpoints.
            clock: returns the database's time.
            jitter: returns a random number between -1 and 1.
            monotonic: returns seconds that never go back.
        """
        self._store = store
        self._post = post
        self._pulse = pulse
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._monotonic = monotonic
        self._schedule = Schedule(
            delays=settings.webhook_retry_delays, refusals_max=settings.webhook_permanent_attempts
        )
        self._lanes = Lanes(
            fast=settings.webhook_concurrency, slow=settings.webhook_slow_concurrency
        )
        self._memory = Memory()
        self._cache = EndpointCache(keys=keys, timeout=settings.webhook_timeout)
        self._recorder = Recorder(record=store.record, recorded=self._on_recorded)
        self._fan_outs = FanOuts(add_part=store.fan_out)
        self._owned: OrderedDict[WebhookId, _Owned] = OrderedDict()  # longest idle first
        self._tasks: set[asyncio.Task[None]] = set()
        self._young: deque[_UnderWay] = deque()
        self._leading: deque[_UnderWay] = deque()
        self._wake = db.WakeUp()
        self._loads = LoadRequests()
        self._wants_load = asyncio.Event()
        self._unread: set[WebhookId] = set()
        self._wants_endpoint = asyncio.Event()
        self._closing: dict[WebhookId, _Owned] = {}
        self._wants_close = asyncio.Event()
        self._changed: dict[WebhookId, _Owned] = {}
        # A queue that is given back must not get a delivery that this process attempts.
        self._ownership = asyncio.Lock()
        # The deliveries whose attempts were recorded while events are recorded.
        self._recorded_meanwhile: set[DeliveryId] | None = None
        self._alive_until = 0.0
        self._remind_at = self._monotonic()
        self._is_stopping = False

    # What others call.

    @property
    def notifications(self) -> Mapping[str, postgres.Notify]:
        """The channels of PostgreSQL that this dispatcher listens to."""
        return {
            deliveries.WAKE_CHANNEL: self._on_due,
            webhooks.CHANGES_CHANNEL: self._on_change,
        }

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
        touched: dict[WebhookId, _Owned] = {}
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
            self._refill(each)
            self._refresh(each)
        self._pump()

    def _add(self, owned: _Owned, delivery: DueDelivery) -> None:
        """Keep a new delivery in memory if there is room; the table has it in any case."""
        if owned.discard_for is not None:
            self._discard(owned, owned.discard_for)
        elif owned.queue.more or not owned.queue.room or self._is_paused(owned):
            owned.queue.more = True
        else:
            owned.queue.add((delivery,))
            self._touch(owned)
            self._check_version(owned, delivery)

    def _on_due(self, owner: str | None) -> None:
        """Look for due queues; `owner` is None if notifications may be lost."""
        if owner is None or owner in ("", self._store.owner):
            self._wake.call()

    def _on_change(self, webhook_id: str | None) -> None:
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

    async def run(self) -> Never:
        """Deliver until cancelled; then finish and record the attempts, and give the queues back."""
        # These two also run while the attempts under way are finished.
        heart = asyncio.create_task(self._keep_alive(), name="keep_alive")
        lasting = [heart, asyncio.create_task(self._recorder.run(), name="record")]
        try:
            await run_together(
                lasting=_until_one_ends(lasting),
                fan_outs=self._fan_outs.run(),
                take=self._take(),
                load=self._load(),
                endpoints=self._read_endpoints(),
                close=self._close(),
                age=self._age(),
                housekeeping=self._keep_house(),
            )
        finally:
            self._is_stopping = True
            try:
                await self._finish(heart)
            finally:
                for task in lasting:
                    task.cancel()
                await asyncio.gather(*lasting, return_exceptions=True)
        raise AssertionError("unreachable: a loop ended without an error")

    # Loops.

    async def _keep_alive(self) -> Never:
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
            self._alive_until = began + ALIVE_FOR.total_seconds()
            self._pump()
            elapsed = self._monotonic() - began
            await asyncio.sleep(max(HEARTBEAT.total_seconds() - elapsed, 0.1))

    async def _take(self) -> Never:
        """Take due queues at each notification and each `TAKE_INTERVAL`."""
        while True:
            self._pulse.beat()
            states = await postgres.through_outages(
                partial(self._store.take, limit=TAKE_MAX), doing="taking queues"
            )
            for state in states:
                self._request_load(self._own(state))
            self._pump()
            if len(states) < TAKE_MAX:
                await asyncio.sleep(TAKE_PAUSE.total_seconds())
                await self._wake.wait(at_most=TAKE_INTERVAL)

    async def _load(self) -> Never:
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
            if owned.discard_for is None and not self._is_paused(owned):
                owned.queue.add(fresh)
                owned.queue.more = owned.queue.more or webhook_id in loaded.more
                for delivery in fresh:
                    self._check_version(owned, delivery)
                if fresh:
                    self._touch(owned)
            if (next_due := loaded.next_due.get(webhook_id)) is not None:
                self._expect(owned, next_due)
            self._refill(owned)
            self._refresh(owned)
        self._pump()

    async def _read_endpoints(self) -> Never:
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
            self._pump()

    async def _close(self) -> Never:
        """Disable endpoints, and discard the deliveries of endpoints that are disabled or deleted."""
        while True:
            await self._wants_close.wait()
            for owned in list(self._closing.values()):
                if not await self._close_next(owned):
                    self._closing.pop(owned.webhook_id, None)
            if not self._closing:
                self._wants_close.clear()

    async def _close_next(self, owned: _Owned) -> bool:
        """Take the next step; return whether there may be another."""
        webhook_id = owned.webhook_id
        if (disable_for := owned.disable_for) is not None:
            await postgres.through_outages(
                partial(self._store.disable, webhook_id, reason=disable_for),
                doing="disabling an endpoint",
            )
            log.warning(
                "delivery.endpoint_disabled", webhook_id=str(webhook_id), reason=disable_for
            )
            owned.disable_for = None
        if (reason := owned.discard_for) is None:
            return False
        discarded = await postgres.through_outages(
            lambda: self._store.discard(
                webhook_id, reason=reason, keep=tuple(owned.queue.known), limit=DISCARD_MAX
            ),
            doing="discarding deliveries",
        )
        if discarded:
            log.info("delivery.discarded", webhook_id=str(webhook_id), deliveries=discarded)
        if discarded >= DISCARD_MAX:
            return True
        self._give_back_soon(owned)
        return False

    async def _age(self) -> Never:
        while True:
            await asyncio.sleep(AGE_INTERVAL.total_seconds())
            now = self._monotonic()
            if self._grow_old(now=now):
                self._pump()

    def _grow_old(self, *, now: float) -> bool:
        """Move slow attempts; return whether others may start now."""
        moved = False
        slow, waiting = QUICK.total_seconds(), FOLLOWER_WAIT.total_seconds()
        while self._young and (each := self._young[0]).began + slow <= now:
            self._young.popleft()
            if not each.has_ended:
                self._lanes.grow_old(each.slot)
                self._leading.append(each)
                moved = True
        while self._leading and (each := self._leading[0]).began + waiting <= now:
            self._leading.popleft()
            if not each.has_ended:
                each.owned.queue.let_followers_start(each.delivery)
                self._refresh(each.owned)
                moved = True
        return moved

    async def _keep_house(self) -> Never:
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL.total_seconds())
            await self._save()
            await self._release()
            if self._monotonic() >= self._remind_at:
                self._remind_at = self._monotonic() + REMIND_INTERVAL.total_seconds()
                await postgres.through_outages(self._store.remind, doing="reminding of queues")

    async def _save(self) -> None:
        while self._changed:
            changed = [self._changed.pop(each) for each in list(self._changed)[:TAKE_MAX]]
            await postgres.through_outages(
                partial(self._store.save, [self._state(each) for each in changed]),
                doing="saving the state of queues",
            )

    async def _release(self) -> None:
        """Give back the queues that have nothing to do."""
        now = self._monotonic()
        idle: list[_Owned] = []
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
            self._refresh(owned)
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

    def _may_leave(self, owned: _Owned, *, now: float) -> bool:
        soon = now + IDLE.total_seconds()
        queue = owned.queue
        if owned.webhook_id in self._closing or owned.webhook_id in self._changed:
            return False
        is_blocked = queue.pace.blocked_until > soon
        if is_blocked or self._is_paused(owned) or owned.discard_for is not None:
            if len(queue.known) > queue.due:
                # An attempt is under way; the others stay in memory, because nothing would load them.
                return False
            queue.forget_due()
            self._refresh(owned)
            return True
        if queue.known or queue.more or self._loads.has(queue) or owned.recorded is not None:
            return False
        return owned.next_due is None or owned.next_due > soon

    async def _finish(self, heart: asyncio.Task[Never]) -> None:
        """Let the attempts under way end, record them, and leave."""
        timeout = self._settings.webhook_timeout.total_seconds()
        if self._tasks:
            log.info("delivery.finishing", attempts=len(self._tasks))
            _, unfinished = await asyncio.wait(self._tasks, timeout=timeout)
            for task in unfinished:
                task.cancel()
            if unfinished:
                log.warning("delivery.abandoned", attempts=len(unfinished))
                await asyncio.wait(unfinished)
        try:
            async with asyncio.timeout(RECORDING_GRACE.total_seconds()):
                await self._recorder.until_empty()
                await self._save()
                # A heartbeat after it would register the process again.
                heart.cancel()
                await asyncio.wait((heart,))
                await postgres.through_outages(self._store.leave, doing="giving queues back")
        except TimeoutError:
            # Others take the queues once this process counts as dead.
            log.warning("delivery.not_left")

    # Queues and endpoints.

    def _own(self, state: QueueState) -> _Owned:
        owned = self._owned.get(state.webhook_id)
        if owned is not None:
            return owned
        now = self._monotonic()
        pace = Pace(throttles=state.throttles)
        if state.blocked_until is not None:
            pace.blocked_until = now + (state.blocked_until - self._clock()).total_seconds()
        owned = self._owned[state.webhook_id] = _Owned(
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

    def _forget(self, owned: _Owned) -> None:
        """Drop a queue that this process does not own any more."""
        webhook_id = owned.webhook_id
        del self._owned[webhook_id]
        owned.cancel_timers()
        owned.queue.forget_due()
        self._loads.discard(owned.queue)
        self._closing.pop(webhook_id, None)
        self._changed.pop(webhook_id, None)
        if owned.member is not None:
            self._lanes.leave(owned.member)

    def _read_again(self, owned: _Owned) -> None:
        owned.endpoint = None
        self._unread.add(owned.webhook_id)
        self._wants_endpoint.set()
        self._refresh(owned)

    def _check_version(self, owned: _Owned, delivery: DueDelivery) -> None:
        if owned.endpoint is not None and delivery.version > owned.endpoint.version:
            self._cache.forget(owned.webhook_id)
            self._read_again(owned)

    def _use(self, owned: _Owned, endpoint: ReadyEndpoint) -> None:
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
        self._refresh(owned)

    def _forget_failures(self, owned: _Owned) -> None:
        """Treat an endpoint as one that never failed, as the database does already.

        Otherwise the first failure after it was enabled would disable it again, and a new receiver
        would wait for the end of the pause that the earlier one asked for.
        """
        owned.failing_since, owned.failures = None, 0
        owned.queue.pace.blocked_until, owned.queue.pace.throttles = 0.0, 0
        # A state that was saved meanwhile has the failures of before.
        self._note_change(owned)

    def _is_paused(self, owned: _Owned) -> bool:
        return owned.endpoint is not None and owned.endpoint.state is EndpointState.PAUSED

    def _discard(self, owned: _Owned, reason: DiscardReason) -> None:
        owned.discard_for = reason
        owned.queue.forget_due()
        self._refresh(owned)
        self._closing[owned.webhook_id] = owned
        self._wants_close.set()

    def _give_back_soon(self, owned: _Owned) -> None:
        owned.active_at = float("-inf")
        if owned.webhook_id in self._owned:
            self._owned.move_to_end(owned.webhook_id, last=False)

    def _touch(self, owned: _Owned) -> None:
        owned.active_at = self._monotonic()
        if owned.webhook_id in self._owned:
            self._owned.move_to_end(owned.webhook_id)

    def _request_load(self, owned: _Owned) -> None:
        self._loads.add(owned.queue)
        self._wants_load.set()

    def _refill(self, owned: _Owned) -> None:
        if owned.queue.more and owned.queue.due < REFILL and owned.recorded is None:
            self._request_load(owned)

    def _expect(self, owned: _Owned, due_at: datetime | None) -> None:
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

    def _on_due_time(self, owned: _Owned) -> None:
        owned.due_timer = None
        owned.next_due = None
        self._request_load(owned)

    def _state(self, owned: _Owned) -> QueueState:
        pace = owned.queue.pace
        blocked_for = pace.blocked_until - self._monotonic()
        return QueueState(
            webhook_id=owned.webhook_id,
            tenant_id=owned.tenant_id,
            blocked_until=(
                self._clock() + timedelta(seconds=blocked_for) if blocked_for > 0 else None
            ),
            throttles=pace.throttles,
            failing_since=owned.failing_since,
            failures=owned.failures,
        )

    # Attempts.

    def _refresh(self, owned: _Owned) -> None:
        """Let a queue wait for a slot, or not, after anything about it has changed."""
        member = owned.member
        if member is None:
            return
        if (
            owned.endpoint is None
            or owned.is_leaving
            or owned.discard_for is not None
            or owned.endpoint.state is not EndpointState.ACTIVE
            or not member.has_room
            or not owned.queue.has_next()
        ):
            self._lanes.withdraw(member)
            return
        now = self._monotonic()
        ready_at = owned.queue.pace.ready_at(now=now, under_way=member.under_way)
        if ready_at is not None and ready_at <= now:
            self._lanes.wait(member)
            return
        self._lanes.withdraw(member)
        if ready_at is not None and owned.pace_timer is None:
            owned.pace_timer = asyncio.get_running_loop().call_later(
                ready_at - now, self._on_pace_time, owned
            )

    def _on_pace_time(self, owned: _Owned) -> None:
        owned.pace_timer = None
        self._refresh(owned)
        self._pump()

    def _pump(self) -> None:
        """Start attempts while there are slots for them."""
        if self._is_stopping or self._recorder.is_full or self._monotonic() >= self._alive_until:
            return
        while (slot := self._lanes.next()) is not None:
            self._start(slot)

    def _start(self, slot: Slot) -> None:
        owned = self._owned[slot.member.webhook_id]
        now = self._monotonic()
        delivery = owned.queue.start()
        owned.queue.pace.start(now=now)
        endpoint = owned.endpoint
        if endpoint is None:
            raise RuntimeError("a queue waits for a slot only while its endpoint is known")
        under_way = _UnderWay(
            owned=owned, endpoint=endpoint, delivery=delivery, slot=slot, began=now
        )
        self._young.append(under_way)
        task = asyncio.create_task(self._attempt(under_way))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._touch(owned)
        self._refill(owned)
        self._refresh(owned)

    async def _attempt(self, under_way: _UnderWay) -> None:
        try:
            result, request_headers = await sending.send(
                under_way.delivery, under_way.endpoint, post=self._post, clock=self._clock
            )
            self._end(under_way, result, request_headers)
        except Exception:
            # Nothing awaits this task. The delivery is attempted again once its queue is found overdue.
            delivery_id = under_way.delivery.delivery_id
            log.exception("delivery.attempt_crashed", delivery_id=str(delivery_id))
            under_way.owned.queue.known.discard(delivery_id)

    def _end(
        self,
        under_way: _UnderWay,
        result: AttemptResult,
        request_headers: Mapping[str, str] | None,
    ) -> None:
        """Decide what follows from an attempt, free its slot, and have it recorded."""
        owned, delivery = under_way.owned, under_way.delivery
        under_way.has_ended = True
        # First: a slot whose attempt has ended must be free, whatever fails below.
        self._lanes.end(under_way.slot, _reaction(result.outcome))
        now = self._clock()
        settled = settlement.after(
            result.outcome,
            status_code=result.status_code,
            attempts_made=delivery.attempts_made + 1,
            only_refused=delivery.only_refused,
            schedule=self._schedule,
            now=now,
            jitter=self._jitter(),
            retry_after=result.retry_after,
        )
        self._learn(under_way, result, settled, now=now)
        owned.queue.let_followers_start(delivery)
        self._recorder.add(
            FinishedAttempt(
                delivery=delivery,
                result=result,
                settlement=settled,
                request_headers=request_headers,
            )
        )
        self._refresh(owned)
        self._pump()

    def _learn(
        self, under_way: _UnderWay, result: AttemptResult, settled: Settlement, *, now: datetime
    ) -> None:
        """Update what is known about the endpoint."""
        owned, pace = under_way.owned, under_way.owned.queue.pace
        if result.outcome in _OWN_FAULTS:
            return
        if result.outcome is AttemptOutcome.DELIVERED:
            if pace.throttles or owned.failures:
                pace.accept(started_at=under_way.began)
                owned.failing_since, owned.failures = None, 0
                self._note_change(owned)
            return
        owned.failing_since = owned.failing_since or now
        owned.failures += 1
        if result.outcome is AttemptOutcome.THROTTLED:
            wait = result.retry_after
            pace.throttle(
                started_at=under_way.began,
                now=self._monotonic(),
                retry_after=None if wait is None else wait.total_seconds(),
            )
        self._note_change(owned)
        if settled.endpoint_is_gone:
            self._disable(owned, DisabledReason.GONE)
        elif settlement.is_failing(
            failing_since=owned.failing_since,
            failures=owned.failures,
            disable_after=self._settings.webhook_disable_after,
            now=now,
        ):
            self._disable(owned, DisabledReason.FAILING)

    def _disable(self, owned: _Owned, reason: DisabledReason) -> None:
        if owned.discard_for is None and self._owned.get(owned.webhook_id) is owned:
            owned.disable_for = reason
            self._discard(owned, DiscardReason.ENDPOINT_DISABLED)

    def _note_change(self, owned: _Owned) -> None:
        if self._owned.get(owned.webhook_id) is owned:
            self._changed[owned.webhook_id] = owned

    def _on_recorded(self, attempt: FinishedAttempt, is_recorded: bool) -> None:  # noqa: FBT001  # a callback
        delivery, result = attempt.delivery, attempt.result
        write = log.info if is_recorded else log.warning
        write(
            "delivery.attempted" if is_recorded else "delivery.not_recorded",
            delivery_id=str(delivery.delivery_id),
            webhook_id=str(delivery.webhook_id),
            event_id=str(delivery.event_id),
            attempt=delivery.attempts_made + 1,
            outcome=result.outcome.value,
            status_code=result.status_code,
            duration_ms=round(result.duration / timedelta(milliseconds=1)),
        )
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
        if not self._recorder.is_full:
            self._pump()


def _reaction(outcome: AttemptOutcome) -> Reaction:
    if outcome is AttemptOutcome.DELIVERED:
        return Reaction.ACCEPTED
    return Reaction.SILENT if outcome in _UNREACHED else Reaction.REFUSED


async def _until_one_ends(tasks: Sequence[asyncio.Task[Never]]) -> None:
    """Return once a task has ended; raise its error."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()
