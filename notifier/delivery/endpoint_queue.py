"""The due deliveries of one endpoint in memory, and the memory of all endpoints together."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from notifier.delivery.pacing import Pace
from notifier.delivery.work import DueDelivery
from schemas.ids import DeliveryId, TenantId, UploadId, WebhookId

ENDPOINT_MAX: Final = 200
"""Due deliveries of one endpoint in memory. The rest stays in the table: a load of this size takes
milliseconds, and an endpoint at full speed needs several of them per second."""

PROCESS_MAX: Final = 5_000
"""Due deliveries in memory, with events of 64 KiB at most: 320 MiB at worst, 5 MiB as a rule."""

ENDPOINT_SHARE: Final = 8
"""An endpoint may have one part in this many of what its tenant has left."""

ENDPOINT_MIN: Final = 5
"""Due deliveries of an endpoint that has none in memory, even if others use all of it."""

FOLLOWER_WAIT: Final = timedelta(seconds=1)
"""How long the next event of an upload waits for the first attempt of the one before."""


class Memory:
    """How many due deliveries the process keeps, shared by tenants and endpoints.

    A tenant may have as many as are left for all, an endpoint a part of what its tenant has left:
    a tenant with many endpoints, or an endpoint with many deliveries, leaves room for the others.
    An endpoint without any has room for a few, up to twice the size.
    """

    def __init__(self, size: int = PROCESS_MAX) -> None:
        self._size = size
        self._free = size
        self._taken: dict[TenantId, int] = {}

    def room(self, tenant_id: TenantId, *, taken: int) -> int:
        """Return how many more deliveries an endpoint may have, of which `taken` are in memory."""
        of_tenant = self._taken.get(tenant_id, 0)
        share = (self._free - of_tenant) // ENDPOINT_SHARE
        if not taken and of_tenant < self._size and self._free > -self._size:
            share = max(share, ENDPOINT_MIN)
        return max(min(share, ENDPOINT_MAX) - taken, 0)

    def take(self, tenant_id: TenantId, count: int = 1) -> None:
        self._free -= count
        taken = self._taken.get(tenant_id, 0) + count
        if taken:
            self._taken[tenant_id] = taken
        else:
            self._taken.pop(tenant_id, None)

    def give_back(self, tenant_id: TenantId, count: int = 1) -> None:
        self.take(tenant_id, -count)


@dataclass(eq=False, kw_only=True, slots=True)
class DueQueue:
    """The due deliveries of an endpoint whose queue this process owns.

    Attributes:
        pace: when the next request may start.
        known: deliveries in memory: due, under way, or ended but not recorded.
        more: the table has due deliveries that are not in memory.
    """

    webhook_id: WebhookId
    tenant_id: TenantId
    memory: Memory
    pace: Pace
    known: set[DeliveryId] = field(default_factory=set)
    more: bool = False
    _first: deque[DueDelivery] = field(default_factory=deque)
    _retries: deque[DueDelivery] = field(default_factory=deque)
    # By upload, the deliveries that wait for the first attempt of the one before.
    _followers: dict[UploadId, list[DueDelivery]] = field(default_factory=dict)
    _follower_count: int = 0

    @property
    def due(self) -> int:
        """The deliveries that wait in memory."""
        return len(self._first) + len(self._retries) + self._follower_count

    @property
    def room(self) -> int:
        return self.memory.room(self.tenant_id, taken=self.due)

    def add(self, deliveries: Iterable[DueDelivery]) -> None:
        """Add deliveries that the queue does not know yet."""
        count = 0
        for delivery in deliveries:
            if delivery.delivery_id not in self.known:
                self.known.add(delivery.delivery_id)
                (self._retries if delivery.attempts_made else self._first).append(delivery)
                count += 1
        self.memory.take(self.tenant_id, count)

    def has_next(self) -> bool:
        """Return whether a delivery may start."""
        first = self._first
        while first:
            upload_id = first[0].upload_id
            if upload_id is None or (waiting := self._followers.get(upload_id)) is None:
                return True
            waiting.append(first.popleft())
            self._follower_count += 1
        return bool(self._retries)

    def start(self) -> DueDelivery:
        """Return the next delivery, which is under way now; `has_next` returned True."""
        if self._first:
            delivery = self._first.popleft()
            if delivery.upload_id is not None:
                self._followers[delivery.upload_id] = []
        else:
            delivery = self._retries.popleft()
        self.memory.give_back(self.tenant_id)
        return delivery

    def let_followers_start(self, delivery: DueDelivery) -> None:
        """Let the next events of the upload start: the attempt has ended, or takes too long."""
        if delivery.attempts_made or delivery.upload_id is None:
            return
        followers = self._followers.pop(delivery.upload_id, None)
        if followers:
            self._first.extendleft(reversed(followers))
            self._follower_count -= len(followers)

    def forget_due(self) -> None:
        """Forget the deliveries that wait; the table has them."""
        waiting = [*self._first, *self._retries]
        waiting += [each for followers in self._followers.values() for each in followers]
        self._first.clear()
        self._retries.clear()
        for followers in self._followers.values():
            followers.clear()
        self._follower_count = 0
        self.known.difference_update(each.delivery_id for each in waiting)
        self.memory.give_back(self.tenant_id, len(waiting))
        self.more = self.more or bool(waiting)
