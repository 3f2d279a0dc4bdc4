"""Which queues read due deliveries next, and how many."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from notifier.delivery.endpoint_queue import ENDPOINT_MAX, DueQueue
from schemas.ids import TenantId, WebhookId

ROWS: Final = 1_000
"""Deliveries of one load: a statement of a few milliseconds."""

QUEUES: Final = 100
"""Queues of one load."""

DELIVERIES_MIN: Final = 10
"""Deliveries of each queue at least, even if there is room for fewer: bounds the number of loads."""

LOOKS: Final = 10
"""Queues of a tenant that are looked at in vain before the next tenant's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    queues: Sequence[DueQueue]
    limit: int


class LoadRequests:
    """Queues that may have due deliveries in the table, served round robin over tenants."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[TenantId, OrderedDict[WebhookId, DueQueue]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, queue: DueQueue) -> None:
        queues = self._tenants.setdefault(queue.tenant_id, OrderedDict())
        self._count += queue.webhook_id not in queues
        queues[queue.webhook_id] = queue

    def has(self, queue: DueQueue) -> bool:
        return queue.webhook_id in self._tenants.get(queue.tenant_id, ())

    def discard(self, queue: DueQueue) -> None:
        queues = self._tenants.get(queue.tenant_id)
        if queues is not None and queues.pop(queue.webhook_id, None) is not None:
            self._count -= 1
            if not queues:
                del self._tenants[queue.tenant_id]

    def next(self) -> Load | None:
        """Remove and return queues that have room in memory; None if none of those looked at has."""
        if not self._count:
            return None
        limit = max(min(ROWS // self._count, ENDPOINT_MAX), DELIVERIES_MIN)
        of_each = max(QUEUES // len(self._tenants), 1)
        chosen: list[DueQueue] = []
        for tenant_id in list(islice(self._tenants, QUEUES)):
            self._tenants.move_to_end(tenant_id)
            chosen += self._choose(tenant_id, count=of_each, limit=limit)
        for queue in chosen:
            self.discard(queue)
        return Load(queues=chosen, limit=limit) if chosen else None

    def _choose(self, tenant_id: TenantId, *, count: int, limit: int) -> list[DueQueue]:
        queues = self._tenants[tenant_id]
        chosen: list[DueQueue] = []
        reserved = 0
        in_vain = 0
        for queue in list(islice(queues.values(), count + LOOKS)):
            room = min(queue.room, limit)
            if room and len(chosen) < count:
                # Until the choice is complete: the next queues have less room.
                queue.memory.take(tenant_id, room)
                reserved += room
                chosen.append(queue)
            else:
                queues.move_to_end(queue.webhook_id)
                in_vain += 1
                if in_vain >= LOOKS:
                    break
        if chosen:
            chosen[0].memory.give_back(tenant_id, reserved)
        return chosen
