"""Beat: the periodic tasks, their schedule, and the scheduler that shows that beat is alive."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog
from celery.beat import Scheduler
from celery.schedules import schedule as celery_schedule

from pipeline.maintenance.tasks import (
    DeleteTenants,
    FillIndex,
    Sweep,
    SweepExports,
    SweepOrphans,
    SweepRows,
    SweepUploads,
    WatchSteps,
)
from pipeline.messaging.broker import declare_queue
from schemas import topology
from schemas.runtime import outages

if TYPE_CHECKING:
    from schemas.settings import LivenessSettings

log = structlog.stdlib.get_logger(__name__)

PERIODIC_TASKS: Final[tuple[type[Sweep], ...]] = (
    SweepUploads,
    SweepOrphans,
    SweepRows,
    SweepExports,
    WatchSteps,
    DeleteTenants,
    FillIndex,
)

OFTEN: Final = frozenset({WatchSteps, DeleteTenants, FillIndex})
"""The tasks that are due once per `STEP_WATCH_EVERY`."""

TICK: Final = timedelta(seconds=5)

PERIODIC: Final = tuple(each for each in topology.QUEUES if each.name in topology.PERIODIC_QUEUES)

LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
START_OFFSET: Final = timedelta(days=365)
"""Longer than any interval between two runs: every task is due when beat starts."""


def schedule(*, sweep_every: timedelta, watch_every: timedelta) -> Mapping[str, Mapping[str, Any]]:
    """Return beat's schedule: every task is due when beat starts, then once per interval.

    Without the first run, a beat that restarts more often than once per
    interval would never start a task.
    """
    return {
        task.name: {
            "task": task.name,
            "schedule": celery_schedule(watch_every if task in OFTEN else sweep_every, nowfun=_now),
            "last_run_at": LONG_AGO,
            # Without the timeout beat would block for ever under a memory alarm of the broker.
            "options": {"queue": task.home_queue, "mandatory": True, "confirm_timeout": 10},
        }
        for task in PERIODIC_TASKS
    }


def _now() -> datetime:
    """Return the time that beat's schedule counts by; only differences have a meaning.

    By the machine's clock, nothing would be due for two days after that clock is set back by two
    days.
    """
    return LONG_AGO + START_OFFSET + timedelta(seconds=time.monotonic())


class BeatScheduler(Scheduler):
    """Keeps the schedule in memory and touches the liveness file while the broker answers.

    A restart loses the times of the last runs. That is harmless: every task is
    due at a restart.
    """

    max_interval = TICK.seconds

    def tick(self, *args: Any, **kwargs: Any) -> float:  # noqa: ANN401  # Celery's own signature
        connection = self.connection
        try:
            # An operator may have deleted the queue, or the broker have lost its data. A task that
            # is due waits until its queue exists.
            for queue in PERIODIC:
                declare_queue(self.producer.channel, queue)
        except (*connection.connection_errors, *connection.channel_errors) as error:
            log.warning("beat.broker_lost", reason=type(error).__name__)
            self.close()  # the next tick reconnects
            return TICK.total_seconds()
        wait: float = super().tick(*args, **kwargs)
        if wait > 0:
            self._touch_liveness_file()
        return wait

    def _ensure_connected(self) -> Any:  # noqa: ANN401  # kombu's connection
        # Celery's own method logs each attempt as an error.
        return self.connection.ensure_connection(
            lambda error, wait: log.warning(
                "beat.broker_unreachable", reason=outages.describe(error), retry_seconds=wait
            ),
            interval_start=1,
            interval_max=5,
        )

    def _touch_liveness_file(self) -> None:
        settings: LivenessSettings = self.app.conf["waybill_process"]
        if settings.liveness_file is not None:
            settings.liveness_file.touch()
