"""Which endpoint makes the next attempt, and how many attempts are under way.

Attempts have slots in two lanes. Receivers that answer quickly use the fast lane, which is small:
its slots are free again at once. All others use the slow lane, which is large. An attempt that is
not answered quickly moves to the slow lane while it is under way.

A *flow* is what has a bound of concurrency and a lane: an endpoint, or the endpoints of one
receiver (tenant, scheme, host and port) that were never attempted. Its window starts at one attempt,
doubles with each success, and is one again after an attempt without an answer.

A tenant gets a slot only while it has fewer slots of the lane than are free: one tenant has at most
half of a lane. A tenant without a slot gets one even from a lane that is full, up to twice its size:
attempts that hang do not stop a tenant that comes later.

Picking takes the same time whatever waits. Nothing here reads a clock.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from schemas.ids import TenantId, WebhookId

QUICK: Final = timedelta(milliseconds=500)
"""A receiver that takes longer does not use the fast lane. Most receivers answer in a tenth of it."""

NEW_ENDPOINTS_MAX: Final = 10
"""Concurrent attempts of a receiver's endpoints that were never attempted."""

REMEMBERED: Final = 10_000
"""Endpoints and receivers whose windows are remembered while they have nothing to do."""


class Reaction(Enum):
    """What a receiver did with a request."""

    ACCEPTED = auto()  # 2xx
    REFUSED = auto()  # another answer, or a broken connection
    SILENT = auto()  # no answer in time, or no connection


@dataclass(eq=False, kw_only=True, slots=True)
class Flow:
    """See the module.

    Attributes:
        window: most attempts at the same time.
        is_quick: the last attempt was accepted, and quickly.
        under_way: attempts that count towards the window.
    """

    tenant_id: TenantId
    window: int = 1
    is_quick: bool = False
    under_way: int = 0
    waiting: "OrderedDict[Member, None]" = field(default_factory=OrderedDict)
    lane: "Lane | None" = None

    def learn(self, reaction: Reaction, *, is_quick: bool, window_max: int) -> None:
        match reaction:
            case Reaction.ACCEPTED:
                self.window = min(2 * self.window, window_max)
            case Reaction.SILENT:
                self.window = 1
            case Reaction.REFUSED:
                pass
        self.is_quick = is_quick and reaction is Reaction.ACCEPTED


@dataclass(eq=False, kw_only=True, slots=True)
class Member:
    """An endpoint with deliveries.

    Attributes:
        receiver: the flow of the receiver's endpoints that were never attempted.
        own: the flow of this endpoint, after its first attempt.
        concurrency: most attempts at the same time.
    """

    webhook_id: WebhookId
    tenant_id: TenantId
    receiver: Flow
    concurrency: int
    own: Flow | None = None
    under_way: int = 0
    waits: bool = False

    @property
    def flow(self) -> Flow:
        return self.receiver if self.own is None else self.own

    @property
    def has_room(self) -> bool:
        return self.under_way < self.concurrency


@dataclass(eq=False, kw_only=True, slots=True)
class Slot:
    """The place of one attempt."""

    member: Member
    flow: Flow
    lane: "Lane"
    is_young: bool = True


class Lane:
    """A number of slots, shared by tenants."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self._taken: dict[TenantId, int] = {}
        self._flows: dict[TenantId, OrderedDict[Flow, None]] = {}
        # The tenants that have waiting flows, by the number of their slots.
        self._tenants: dict[int, OrderedDict[TenantId, None]] = {}

    @property
    def has_overflow(self) -> bool:
        """Whether the lane takes attempts beyond its size."""
        return self.free > -self.size

    def add(self, flow: Flow) -> None:
        flows = self._flows.get(flow.tenant_id)
        if flows is None:
            flows = self._flows[flow.tenant_id] = OrderedDict()
            self._enlist(flow.tenant_id)
        flows[flow] = None

    def remove(self, flow: Flow) -> None:
        flows = self._flows[flow.tenant_id]
        del flows[flow]
        if not flows:
            del self._flows[flow.tenant_id]
            self._strike(flow.tenant_id)

    def next(self) -> Flow | None:
        """Return the flow whose turn it is; None if no waiting tenant may take a slot."""
        if not self._tenants:
            return None
        # Few different numbers exist: their sum is the number of taken slots.
        fewest = min(self._tenants)
        if fewest >= self.free and (fewest or not self.has_overflow):
            return None
        flows = self._flows[next(iter(self._tenants[fewest]))]
        flow = next(iter(flows))
        flows.move_to_end(flow)
        return flow

    def take(self, tenant_id: TenantId) -> None:
        self._change(tenant_id, by=1)

    def give_back(self, tenant_id: TenantId) -> None:
        self._change(tenant_id, by=-1)

    def _change(self, tenant_id: TenantId, *, by: int) -> None:
        waits = tenant_id in self._flows
        if waits:
            self._strike(tenant_id)
        self.free -= by
        taken = self._taken.get(tenant_id, 0) + by
        if taken:
            self._taken[tenant_id] = taken
        else:
            del self._taken[tenant_id]
        if waits:
            self._enlist(tenant_id)

    def _enlist(self, tenant_id: TenantId) -> None:
        taken = self._taken.get(tenant_id, 0)
        tenants = self._tenants.get(taken)
        if tenants is None:
            tenants = self._tenants[taken] = OrderedDict()
        tenants[tenant_id] = None

    def _strike(self, tenant_id: TenantId) -> None:
        taken = self._taken.get(tenant_id, 0)
        tenants = self._tenants[taken]
        del tenants[tenant_id]
        if not tenants:
            del self._tenants[taken]


class Lanes:
    """The slots of one process."""

    def __init__(self, *, fast: int, slow: int) -> None:
        self._fast = Lane(fast)
        self._slow = Lane(slow)
        self._receivers: OrderedDict[tuple[TenantId, str], Flow] = OrderedDict()
        self._endpoints: OrderedDict[WebhookId, Flow] = OrderedDict()

    @property
    def under_way(self) -> int:
        return self._fast.size - self._fast.free + self._slow.size - self._slow.free

    def join(
        self,
        webhook_id: WebhookId,
        *,
        tenant_id: TenantId,
        receiver: str,
        concurrency: int,
        is_failing: bool,
    ) -> Member:
        """Return a new member.

        Args:
            webhook_id: the endpoint.
            tenant_id: the owner of the endpoint.
            receiver: scheme, host and port of the endpoint.
            concurrency: most attempts of the endpoint at the same time.
            is_failing: its last attempt failed, perhaps in another process: it does not delay the
                receiver's endpoints that were never attempted.
        """
        own = self._endpoints.pop(webhook_id, None)
        if own is None and is_failing:
            own = Flow(tenant_id=tenant_id)
        if own is not None:
            own.window = min(own.window, concurrency)
        return Member(
            webhook_id=webhook_id,
            tenant_id=tenant_id,
            receiver=self._receiver(tenant_id, receiver),
            concurrency=concurrency,
            own=own,
        )

    def change(self, member: Member, *, receiver: str, concurrency: int) -> None:
        """Take over changed options of an endpoint. The member does not wait afterwards."""
        self.withdraw(member)
        member.receiver = self._receiver(member.tenant_id, receiver)
        member.concurrency = concurrency
        if member.own is not None:
            member.own.window = min(member.own.window, concurrency)

    def leave(self, member: Member) -> None:
        """Forget a member that has no attempt under way; its window is remembered for a while."""
        self.withdraw(member)
        if member.own is not None:
            self._endpoints[member.webhook_id] = member.own
            if len(self._endpoints) > REMEMBERED:
                self._endpoints.popitem(last=False)

    def wait(self, member: Member) -> None:
        """Let a member wait for a slot. Its attempts under way must be fewer than its concurrency."""
        if not member.waits:
            member.waits = True
            member.flow.waiting[member] = None
            self._place(member.flow)

    def withdraw(self, member: Member) -> None:
        """Let a member wait no longer."""
        if member.waits:
            member.waits = False
            del member.flow.waiting[member]
            self._place(member.flow)

    def next(self) -> Slot | None:
        """Take a slot for the member whose turn it is; None if no slot is free for those that wait.

        The member does not wait afterwards.
        """
        lane = self._fast
        flow = lane.next()
        if flow is None:
            lane = self._slow
            flow = lane.next()
            if flow is None:
                return None
        member, _ = flow.waiting.popitem(last=False)
        member.waits = False
        member.under_way += 1
        flow.under_way += 1
        self._place(flow)
        lane.take(member.tenant_id)
        return Slot(member=member, flow=flow, lane=lane)

    def grow_old(self, slot: Slot) -> None:
        """Treat an attempt as slow: it is under way for longer than `QUICK`."""
        slot.is_young = False
        member = slot.member
        if slot.lane is self._fast and self._slow.has_overflow:
            self._fast.give_back(member.tenant_id)
            self._slow.take(member.tenant_id)
            slot.lane = self._slow
        slot.flow.is_quick = False
        self._place(slot.flow)
        # The other new endpoints of the receiver do not wait for the end of the attempt.
        self._know(slot)

    def end(self, slot: Slot, reaction: Reaction) -> None:
        """Free the slot of an attempt that has ended."""
        member = slot.member
        slot.lane.give_back(member.tenant_id)
        member.under_way -= 1
        if slot.flow is member.receiver:
            slot.flow.learn(reaction, is_quick=slot.is_young, window_max=NEW_ENDPOINTS_MAX)
            self._know(slot)
        own = slot.flow
        own.under_way -= 1
        own.learn(reaction, is_quick=slot.is_young, window_max=member.concurrency)
        self._place(own)

    def _receiver(self, tenant_id: TenantId, receiver: str) -> Flow:
        key = (tenant_id, receiver)
        flow = self._receivers.pop(key, None) or Flow(tenant_id=tenant_id)
        self._receivers[key] = flow
        if len(self._receivers) > REMEMBERED:
            self._receivers.popitem(last=False)
        return flow

    def _know(self, slot: Slot) -> None:
        """Move an attempt, and the endpoint, from the flow of the receiver to the endpoint's own."""
        member = slot.member
        shared = member.receiver
        if slot.flow is not shared:
            return
        if member.own is None:
            own = Flow(tenant_id=member.tenant_id)
            if member.waits:
                del shared.waiting[member]
                own.waiting[member] = None
            member.own = own
        slot.flow = member.own
        shared.under_way -= 1
        member.own.under_way += 1
        self._place(shared)
        self._place(member.own)

    def _place(self, flow: Flow) -> None:
        """Offer a flow in its lane if it has a waiting member and room in its window."""
        lane = None
        if flow.waiting and flow.under_way < flow.window:
            lane = self._fast if flow.is_quick else self._slow
        if lane is not flow.lane:
            if flow.lane is not None:
                flow.lane.remove(flow)
            if lane is not None:
                lane.add(flow)
            flow.lane = lane
