"""What the searches of a process share: numbers about the passages, a few minutes old."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from schemas.ids import TenantId

SHARES_KEPT: Final = timedelta(minutes=5)
"""PostgreSQL collects them anew after a twentieth of the passages has changed."""

SIZES_KEPT: Final = timedelta(minutes=1)

SIZES_MAX: Final = 10_000
"""Tenants whose number of passages is kept."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How frequent words are, over all tenants.

    Attributes:
        passages: the estimated number of passages.
        by_lexeme: the share of passages that have a lexeme, for the most common ones.
        rare: the share of passages that have any other lexeme, at most.
    """

    passages: int = 0
    rare: float = 1.0
    by_lexeme: Mapping[str, float] = field(default_factory=dict)

    def of(self, lexeme: str) -> float:
        """Return the share of passages with a lexeme; 0 for a rare one."""
        return self.by_lexeme.get(lexeme, 0.0)

    def of_prefix(self, prefix: str) -> float:
        """Return the sum of the shares of the common lexemes that begin so."""
        return sum(share for lexeme, share in self.by_lexeme.items() if lexeme.startswith(prefix))


class SearchStatistics:
    """Numbers about the passages.

    Two searches may read the same number at the same time; the later answer stays.

    Args:
        monotonic: the clock.
    """

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._shares = Shares()
        self._shares_until = float("-inf")
        self._sizes = OrderedDict[TenantId, tuple[int, float]]()

    async def shares(self, read: Callable[[], Awaitable[Shares]]) -> Shares:
        """Return how frequent words are; `read` is called if the answer is too old."""
        if self._monotonic() >= self._shares_until:
            self._shares = await read()
            self._shares_until = self._monotonic() + SHARES_KEPT.total_seconds()
        return self._shares

    async def passages_of(self, tenant_id: TenantId, count: Callable[[], Awaitable[int]]) -> int:
        """Return the number of a tenant's passages; `count` is called if the answer is too old."""
        found, until = self._sizes.get(tenant_id, (0, float("-inf")))
        if self._monotonic() >= until:
            found = await count()
            self._sizes[tenant_id] = found, self._monotonic() + SIZES_KEPT.total_seconds()
            self._sizes.move_to_end(tenant_id)
            if len(self._sizes) > SIZES_MAX:
                self._sizes.popitem(last=False)
        return found
