"""The engine: attempts the due deliveries of own queues, and records the attempts.

A process is at work on the deliveries of an endpoint while it owns the endpoint's queue. All
decisions are made in memory: a delivery costs no statement of its own. The database gets attempts in
groups; no transaction is open during a POST.

The deliveries of a process that dies are attempted again by the next owner of their queues, under
the same message id.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Never

import structlog

from notifier.delivery import sending, settlement
from notifier.delivery.attempt import AttemptResult
from notifier.delivery.endpoint_queue import FOLLOWER_WAIT
from notifier.delivery.endpoints import EndpointCache, ReadyEndpoint
from notifier.delivery.fan_outs import FanOuts
from notifier.delivery.lanes import QUICK, Lanes, Reaction, Slot
from notifier.delivery.outcome import AttemptOutcome
from notifier.delivery.owned import OwnedQueue
from notifier.delivery.owned_queues import OwnedQueues
from notifier.delivery.recorder import Recorder
from notifier.delivery.sending import Post
from notifier.delivery.settlement import Schedule, Settlement
from notifier.delivery.work import (
    DueDelivery,
    EndpointState,
    FinishedAttempt,
    ReceivedEvent,
    Store,
)
from notifier.liveness import Pulse
from notifier.loops import run_together
from schemas.key_ring import KeyRing
from schemas.lifecycle import DisabledReason
from schemas.runtime import postgres
from schemas.settings import DeliverySettings
from schemas.tables import deliveries, webhooks

log = structlog.stdlib.get_logger(__name__)

AGE_INTERVAL: Final = timedelta(milliseconds=50)
"""Between two looks for attempts that are slow."""

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
class _UnderWay:
    owned: OwnedQueue
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
        self._recorder = Recorder(record=store.record, recorded=self._on_recorded)
        self._fan_outs = FanOuts(add_part=store.fan_out)
        self._queues = OwnedQueues(
            store=store,
            cache=EndpointCache(keys=keys, timeout=settings.webhook_timeout),
            lanes=self._lanes,
            fan_outs=self._fan_outs,
            pulse=pulse,
            clock=clock,
            monotonic=monotonic,
            on_change_of=self._refresh,
            on_ready=self._pump,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._young: deque[_UnderWay] = deque()
        self._leading: deque[_UnderWay] = deque()
        self._is_stopping = False

    # What others call.

    @property
    def notifications(self) -> Mapping[str, postgres.Notify]:
        """The channels of PostgreSQL that this dispatcher listens to."""
        return {
            deliveries.WAKE_CHANNEL: self._queues.on_due,
            webhooks.CHANGES_CHANNEL: self._queues.on_change,
        }

    async def record_events(self, events: Sequence[ReceivedEvent]) -> int:
        """Record a group of events, and attempt their deliveries; return how many are repeated."""
        return await self._queues.record_events(events)

    async def run(self) -> Never:
        """Deliver until cancelled; then finish and record the attempts, and give the queues back."""
        # These two also run while the attempts under way are finished.
        heart = asyncio.create_task(self._queues.keep_alive(), name="keep_alive")
        lasting = [heart, asyncio.create_task(self._recorder.run(), name="record")]
        try:
            await run_together(
                lasting=_until_one_ends(lasting),
                fan_outs=self._fan_outs.run(),
                take=self._queues.take(),
                load=self._queues.load(),
                endpoints=self._queues.read_endpoints(),
                close=self._queues.closing.run(),
                age=self._age(),
                housekeeping=self._queues.keep_house(),
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
                await self._queues.save()
                # A heartbeat after it would register the process again.
                heart.cancel()
                await asyncio.wait((heart,))
                await postgres.through_outages(self._store.leave, doing="giving queues back")
        except TimeoutError:
            # Others take the queues once this process counts as dead.
            log.warning("delivery.not_left")

    # Attempts.

    def _refresh(self, owned: OwnedQueue) -> None:
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

    def _on_pace_time(self, owned: OwnedQueue) -> None:
        owned.pace_timer = None
        self._refresh(owned)
        self._pump()

    def _pump(self) -> None:
        """Start attempts while there are slots for them."""
        if (
            self._is_stopping
            or self._recorder.is_full
            or self._monotonic() >= self._queues.alive_until
        ):
            return
        while (slot := self._lanes.next()) is not None:
            self._start(slot)

    def _start(self, slot: Slot) -> None:
        owned = self._queues[slot.member.webhook_id]
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
        self._queues.touch(owned)
        self._queues.refill(owned)
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
                self._queues.note_change(owned)
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
        self._queues.note_change(owned)
        if settled.endpoint_is_gone:
            self._queues.disable(owned, DisabledReason.GONE)
        elif settlement.is_failing(
            failing_since=owned.failing_since,
            failures=owned.failures,
            disable_after=self._settings.webhook_disable_after,
            now=now,
        ):
            self._queues.disable(owned, DisabledReason.FAILING)

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
        self._queues.note_recorded(attempt)
        if not self._recorder.is_full:
            self._pump()

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


def _reaction(outcome: AttemptOutcome) -> Reaction:
    if outcome is AttemptOutcome.DELIVERED:
        return Reaction.ACCEPTED
    return Reaction.SILENT if outcome in _UNREACHED else Reaction.REFUSED


async def _until_one_ends(tasks: Sequence[asyncio.Task[Never]]) -> None:
    """Return once a task has ended; raise its error."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()
