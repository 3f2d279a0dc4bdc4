"""The clock's orders: they carry nothing, and one that comes to nothing is followed by another."""

import logging
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import ClassVar, Final

import structlog
from celery import Task
from sqlalchemy.exc import DBAPIError

from pipeline.context import Context, current_context
from pipeline.maintenance import exclusive, expiry, files, multiparts, objects, originals, retention
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.report import SweepReport
from schemas import topology
from schemas.errors import StoreFailed
from schemas.runtime import postgres

log = structlog.stdlib.get_logger(__name__)

LONGEST: Final = timedelta(minutes=5)
"""A sweep keeps a worker from its transfers, so it ends, done or not."""


class Sweep(Task[[], None]):
    """Base of every sweep. Two at once would do each other's work, so the second one ends."""

    abstract = True
    home_queue: ClassVar[str] = topology.MAINTENANCE

    @abstractmethod
    def sweep(self, context: Context, *, longest: timedelta) -> None:
        """Take away what there is to take away, and log what that was."""

    def run(self) -> None:
        context = current_context()
        longest = min(LONGEST, context.settings.task_time_limit / 4)
        with structlog.contextvars.bound_contextvars(task=self.name):
            try:
                with exclusive.taken(context.engine, self.name) as is_ours:
                    if is_ours:
                        self.sweep(context, longest=longest)
                    else:
                        log.info("sweep.already_running")
            except DBAPIError as error:
                if not postgres.is_outage(error):
                    raise
                log.warning("sweep.database_unreachable", reason=type(error).__name__)


class SweepUploads(Sweep):
    """Ends uploads that nobody finalized in time."""

    name = "tasks.sweep_uploads"

    def sweep(self, context: Context, *, longest: timedelta) -> None:
        log.info("sweep.done", **asdict(expiry.sweep(context, Budget.of(longest))))


class SweepOrphans(Sweep):
    """Removes what is in staging and in the store and belongs to no upload."""

    name = "tasks.sweep_orphans"
    areas: ClassVar[tuple[tuple[str, Callable[[Context, Budget], SweepReport]], ...]] = (
        ("staged_files", files.sweep),
        ("staged_objects", objects.sweep),
        ("multiparts", multiparts.sweep),
        ("originals", originals.sweep),
    )

    def sweep(self, context: Context, *, longest: timedelta) -> None:
        for area, sweep in self.areas:
            # A share for each: the first one may be large enough to leave nothing.
            budget = Budget.of(longest / len(self.areas))
            try:
                findings = sweep(context, budget)
            except (OSError, StoreFailed) as error:
                log.warning("sweep.cut_short", area=area, reason=str(error))
            else:
                log.log(
                    # Nobody else will tell an operator of what every sweep finds again.
                    logging.ERROR if findings.failed else logging.INFO,
                    "sweep.done",
                    area=area,
                    **asdict(findings),
                    complete=not budget.is_spent,
                )


class SweepRows(Sweep):
    """Deletes rows whose time is over."""

    name = "tasks.sweep_rows"

    def sweep(self, context: Context, *, longest: timedelta) -> None:
        budget = Budget.of(longest)
        log.info(
            "sweep.done", **asdict(retention.sweep(context, budget)), complete=not budget.is_spent
        )
