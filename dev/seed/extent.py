"""How much history is seeded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from schemas.settings import StepSettings, SweepSettings

ACTIVE_SHARE: Final = 50
"""By default one in so many jobs has not ended, and no more than `ACTIVE_MAX`."""
ACTIVE_MAX: Final = 5_000


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much history is seeded.

    Equal extents give equal ids and equal facts. Two extents that differ in `rows` alone give the
    same newest jobs.

    Attributes:
        rows: number of jobs.
        active: number of the newest jobs that have not ended; None for the default.
        tenants: number of tenants; the first owns the most jobs, a third of them among 20 tenants.
        span: age of the oldest job. The default is shorter than every retention, so that the
            sweeps of a running system delete none of the history.
        seed: selects the ids and the facts.
        steps: the most steps of a tenant that are queued or running.
        sweeps: the retention that the times of outbox and idempotency keys respect.
    """

    rows: int
    active: int | None = None
    tenants: int = 20
    span: timedelta = timedelta(days=6)
    seed: int = 1
    steps: StepSettings = field(default_factory=StepSettings)
    sweeps: SweepSettings = field(default_factory=SweepSettings)

    @property
    def values(self) -> Mapping[str, Any]:
        """The values of the statements."""
        return {
            "rows": self.rows,
            "tenants": self.tenants,
            "span": self.span,
            "seed": self.seed,
            "active": min(-(-self.rows // ACTIVE_SHARE), ACTIVE_MAX)
            if self.active is None
            else self.active,
            "interactive_max": self.steps.tenant_steps_max,
            "bulk_max": self.steps.tenant_bulk_steps_max,
            "outbox_pace": self._pace(self.sweeps.outbox_retention),
            "idempotency_pace": self._pace(self.sweeps.idempotency_retention),
        }

    def _pace(self, retention: timedelta) -> float:
        """Return the factor that brings the age of every job below a retention."""
        return min(1.0, 0.9 * (retention / self.span))
