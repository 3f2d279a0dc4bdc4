"""The work of the event loop that an answer may cost.

One connection whose peer sends as fast as it can, in pieces that are expensive to parse, would
take the whole event loop, and with it the deliveries of all tenants. So the CPU time of each read
is counted, with a fixed part for the loop's own share:

- the first `FREE` of an answer is free: an ordinary answer costs a tenth;
- a read beyond it is followed by a pause, and all such reads together get `PACED_SHARE` of the
  loop, in turns;
- an answer that costs more than `ANSWER_MAX` is refused;
- what an address costs beyond `FREE` is a debt that shrinks with time; an address with `DEBT_MAX`
  gets `FREE` alone, so repeated attempts are as cheap as ordinary ones.
"""

from collections import OrderedDict
from typing import Final

FREE: Final = 0.0005
"""Seconds of CPU time of an answer that are not counted."""

READ: Final = 0.00002
"""Seconds of CPU time of a read outside of the parser: polling, receiving, scheduling."""

ANSWER_MAX: Final = 0.01
"""Seconds of CPU time of an answer; the head of greatest size in the smallest fields costs half."""

DEBT_MAX: Final = 0.05
"""Seconds of CPU time beyond `FREE` that an address may owe."""

DEBT_REPAID: Final = 0.01
"""Seconds of debt that end in a second: the share of the loop that a flooding address gets."""

DEBTORS_MAX: Final = 10_000
"""Addresses whose debts are remembered; bounds memory. The smallest debts are not forgotten first,
but the oldest, which are the most repaid."""

PAUSE: Final = 0.05
"""Seconds of the shortest pause after a counted read."""

PACED_SHARE: Final = 0.1
"""Share of the loop for the counted reads of all connections."""


class Work:
    """Counts the work of all connections of one event loop."""

    def __init__(self) -> None:
        self._debts: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._turn = 0.0

    def is_allowed(self, address: str, *, spent: float, cost: float, now: float) -> bool:
        """Count a read beyond `FREE`; return whether the connection may go on.

        Args:
            address: of the peer.
            spent: seconds of CPU time of the answer, this read included.
            cost: seconds of CPU time of this read.
            now: the loop's time.
        """
        debt = self._debt(address, now=now) + cost
        self._debts[address] = (debt, now)
        self._debts.move_to_end(address)
        if len(self._debts) > DEBTORS_MAX:
            self._debts.popitem(last=False)
        return spent <= ANSWER_MAX and debt <= DEBT_MAX

    def pause(self, cost: float, *, now: float) -> float:
        """Return the seconds until the turn of the next read of a connection whose read cost `cost`."""
        turn = max(now + PAUSE, self._turn)
        self._turn = max(now, self._turn) + cost / PACED_SHARE
        return turn - now

    def _debt(self, address: str, *, now: float) -> float:
        debt, at = self._debts.get(address, (0.0, now))
        return max(debt - (now - at) * DEBT_REPAID, 0.0)
