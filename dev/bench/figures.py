"""Figures that can be compared: medians, and how far they spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of milliseconds, or of whatever was measured."""

    count: int
    p50: float
    p95: float
    worst: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        return cls(
            count=len(samples),
            p50=median(samples),
            p95=quantiles(samples, n=20)[-1] if len(samples) > 1 else samples[0],
            worst=max(samples),
        )
