"""The fair share of concurrent attempts.

A *receiver* is one tenant's endpoints at one scheme, host and port. It may have
many webhooks, such as one per upload with a callback URL, and all of them are
slow at the same time.
"""

from collections import Counter, OrderedDict
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Final, NewType

Receiver = NewType("Receiver", str)

RECEIVER_MAX: Final = 10
"""Concurrent attempts of one receiver; more would only delay other receivers."""

SLOW: Final = timedelta(seconds=2)
"""An attempt that takes longer marks its receiver as slow, until a quicker attempt."""

SLOW_REMEMBERED: Final = 1000
"""Slow receivers remembered; the next attempt marks a forgotten receiver again."""


class Slots:
    """A fixed number of slots; slow receivers get at most half of them.

    Otherwise a few receivers that hang until the timeout would hold every slot, and healthy
    receivers would wait.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._slow_max = max(total // 2, 1)
        self._taken: Counter[Receiver] = Counter()
        self._slow: OrderedDict[Receiver, None] = OrderedDict()

    def copy(self) -> "Slots":
        """Return an independent copy."""
        draft = Slots(self._total)
        draft._taken = self._taken.copy()
        draft._slow = self._slow.copy()
        return draft

    @property
    def free(self) -> int:
        return self._total - self._taken.total()

    @property
    def closed(self) -> AbstractSet[Receiver]:
        """Receivers that get no slot now, even if slots are free."""
        full = {receiver for receiver, taken in self._taken.items() if taken >= RECEIVER_MAX}
        return full | self._slow.keys() if self._slow_share_is_used_up() else full

    def take(self, receiver: Receiver) -> bool:
        """Take a slot; return False if this receiver gets none now."""
        if not self.free or receiver in self.closed:
            return False
        self._taken[receiver] += 1
        return True

    def release(self, receiver: Receiver, *, duration: timedelta) -> None:
        """Return the slot of an attempt that took `duration`."""
        self._taken[receiver] -= 1
        if not self._taken[receiver]:
            del self._taken[receiver]
        self._slow.pop(receiver, None)
        if duration >= SLOW:
            self._slow[receiver] = None
            if len(self._slow) > SLOW_REMEMBERED:
                self._slow.popitem(last=False)

    def _slow_share_is_used_up(self) -> bool:
        return sum(self._taken[receiver] for receiver in self._slow) >= self._slow_max
