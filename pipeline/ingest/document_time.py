"""The time of a document over several deliveries: what it may cost, and how long one may take."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import Final

from pipeline.messaging.event_task import RetryLater
from pipeline.steps.lease import ClaimedStep
from schemas.settings import CelerySettings

_SECONDS: Final = "seconds"


def used_before(claimed: ClaimedStep) -> timedelta:
    """Return the CPU time that the document has cost in this step, by its checkpoint."""
    return timedelta(seconds=(claimed.checkpoint or {}).get(_SECONDS, 0))


def noted(claimed: ClaimedStep, *, used: timedelta) -> ClaimedStep:
    """Return the step with the CPU time in its checkpoint, which the next renewal records."""
    checkpoint = {**(claimed.checkpoint or {}), _SECONDS: used.total_seconds()}
    return replace(claimed, checkpoint=checkpoint)


class SliceOver(RetryLater):
    """The document takes longer than a delivery may; the next one goes on after the last page."""

    made_progress = True
    attempts_restart = True

    def __init__(self) -> None:
        super().__init__("the document goes on in the next slice")


class Slice:
    """Half of the time after which a task is killed; the other half is for the page at its end.

    The CPU time that a document may cost can take hours on a busy machine.
    """

    def __init__(self, settings: CelerySettings, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._ends = clock() + settings.task_time_limit.total_seconds() / 2

    @property
    def is_over(self) -> bool:
        return self._clock() >= self._ends
