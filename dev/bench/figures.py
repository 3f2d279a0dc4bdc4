"""Statistics of measurements: the spread of values, and the ratio of competitors in one round."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Self, TypeVar

Competitor = TypeVar("Competitor")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The distribution of measured values."""

    count: int
    p50: float
    p95: float
    p99: float
    least: float
    worst: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        return cls(
            count=len(samples),
            p50=median(samples),
            p95=_quantile(samples, parts=20),
            p99=_quantile(samples, parts=100),
            least=min(samples),
            worst=max(samples),
        )


def _quantile(samples: Sequence[float], *, parts: int) -> float:
    """Return the last quantile of as many parts."""
    return quantiles(samples, n=parts, method="inclusive")[-1] if len(samples) > 1 else samples[0]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Ratio to a peer, round by round: a busy machine slows both."""

    median: float
    least: float
    most: float

    @classmethod
    def between(cls, ours: Sequence[float], theirs: Sequence[float]) -> Self:
        """Compare values of the same rounds, in the same order."""
        ratios = [own / peer for own, peer in zip(ours, theirs, strict=True)]
        return cls(median=median(ratios), least=min(ratios), most=max(ratios))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"


def starting_orders(
    competitors: Sequence[Competitor], *, rounds: int
) -> Iterator[Sequence[Competitor]]:
    """Yield the order of each round; the first competitor rotates."""
    for number in range(rounds):
        first = number % len(competitors)
        yield (*competitors[first:], *competitors[:first])
