"""Records the progress of a step and keeps its lease alive, at most once per interval."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Final

from pipeline.context import Context
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep

INTERVAL: Final = timedelta(seconds=1)
"""A cancellation is noticed within one interval."""


class Heartbeat:
    """Call `beat` often; it renews the lease and records the progress once per interval."""

    def __init__(
        self, context: Context, claimed: ClaimedStep, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._context = context
        self.claimed = claimed
        self._clock = clock
        self._next = clock() + INTERVAL.total_seconds()
        self.done = claimed.done
        self.total = claimed.total

    def beat(self) -> None:
        """Renew the lease if the interval has passed.

        Raises:
            StepCancelled, LeaseLost: see `lease.renew`.
        """
        if self._clock() >= self._next:
            self.renew()

    def renew(self) -> None:
        """Renew the lease and record the progress now.

        Raises:
            StepCancelled, LeaseLost: see `lease.renew`.
        """
        with self._context.transaction() as session:
            lease.renew(
                session,
                self.claimed,
                lease=self._context.settings.step_lease,
                done=self.done,
                total=self.total,
                checkpoint=self.claimed.checkpoint,
            )
        self._next = self._clock() + INTERVAL.total_seconds()
