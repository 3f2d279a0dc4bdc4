"""The periodic tasks; a lost message is replaced by the next, as messages have no content."""

import logging
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from time import monotonic
from typing import Any, ClassVar, Final

import structlog
from celery import Task
from sqlalchemy.exc import DBAPIError

from pipeline.context import Context, current_context
from pipeline.index import fill
from pipeline.maintenance import (
    batches,
    documents,
    endpoints,
    exclusive,
    expiry,
    exports,
    jobs,
    lost_facts,
    orphans,
    partitions,
    passages,
    retention,
    revisions,
    tenants,
    watchdog,
)
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.report import SweepReport
from schemas import queues, topology
from schemas.errors import StoreFailed
from schemas.runtime import postgres
from schemas.runtime.embedding.port import EmbedderUnavailable

log = structlog.stdlib.get_logger(__name__)

MAX_TIME: Final = timedelta(minutes=5)
"""A sweep keeps a worker from its transfers, so it ends after this time, complete or not."""


class Sweep(Task[[], None]):
    """Base of every sweep. A second sweep of a kind ends at once while the first sweep runs."""

    abstract = True
    home_queue: ClassVar[str] = topology.MAINTENANCE

    @abstractmethod
    def sweep(self, context: Context, *, max_time: timedelta) -> None:
        """Sweep, and log the result."""

    def run(self) -> None:
        context = current_context()
        max_time = min(MAX_TIME, context.settings.task_time_limit / 4)
        with structlog.contextvars.bound_contextvars(task=self.name):
            try:
                with exclusive.advisory_lock(context.engine, self.name) as is_taken:
                    if is_taken:
                        self.sweep(context, max_time=max_time)
                    else:
                        log.info("sweep.already_running")
            except DBAPIError as error:
                if not postgres.is_outage(error):
                    raise
                log.warning("sweep.database_unreachable", reason=type(error).__name__)


class SweepUploads(Sweep):
    """Ends uploads that were not finalized in time."""

    name = "tasks.sweep_uploads"

    def sweep(self, context: Context, *, max_time: timedelta) -> None:
        log.info("sweep.done", **asdict(expiry.sweep(context, Budget.of(max_time))))


class SweepOrphans(Sweep):
    """Deletes files, objects and multipart uploads that no upload owns."""

    name = "tasks.sweep_orphans"
    areas: ClassVar[tuple[tuple[str, Callable[[Context, Budget], SweepReport]], ...]] = (
        ("staged_files", orphans.sweep_files),
        ("staged_objects", orphans.sweep_staged_objects),
        ("multiparts", orphans.sweep_multiparts),
        ("originals", orphans.sweep_originals),
    )

    def sweep(self, context: Context, *, max_time: timedelta) -> None:
        for area, sweep in self.areas:
            # An equal share each: a large first area would leave no time for the others.
            budget = Budget.of(max_time / len(self.areas))
            try:
                report = sweep(context, budget)
            except (OSError, StoreFailed) as error:
                log.warning("sweep.cut_short", area=area, reason=str(error))
            else:
                log.log(
                    # Every sweep finds these names again, and only the log shows the names to an
                    # operator.
                    logging.ERROR if report.failed else logging.INFO,
                    "sweep.done",
                    area=area,
                    **asdict(report),
                    complete=not budget.is_spent,
                )


class SweepRows(Sweep):
    """Deletes what is older than its retention, keeps the partitions of events, and adds old passages."""

    name = "tasks.sweep_rows"
    areas: ClassVar[tuple[tuple[str, Callable[[Context, Budget], Any]], ...]] = (
        ("partitions", partitions.sweep),
        ("rows", retention.sweep),
        ("jobs", jobs.sweep),
        ("documents", documents.sweep),
        ("endpoints", endpoints.sweep),
        ("revisions", revisions.sweep),
        ("batches", batches.sweep),
        ("passages", passages.sweep),
    )

    def sweep(self, context: Context, *, max_time: timedelta) -> None:
        ends_at = monotonic() + max_time.total_seconds()
        for place, (area, sweep) in enumerate(self.areas):
            # An equal share of the time that is left: most areas need little of theirs.
            time_left = timedelta(seconds=max(0, ends_at - monotonic()))
            budget = Budget.of(time_left / (len(self.areas) - place))
            try:
                report = sweep(context, budget)
            except StoreFailed as error:
                log.warning("sweep.cut_short", area=area, reason=str(error))
            else:
                log.info("sweep.done", area=area, **asdict(report), complete=not budget.is_spent)


class SweepExports(Sweep):
    """Deletes exports that expired or were deleted, and files that no export has."""

    name = "tasks.sweep_exports"
    areas: ClassVar[tuple[tuple[str, Callable[[Context, Budget], Any]], ...]] = (
        ("exports", exports.sweep),
        ("export_files", exports.sweep_orphans),
    )

    def sweep(self, context: Context, *, max_time: timedelta) -> None:
        for area, sweep in self.areas:
            budget = Budget.of(max_time / len(self.areas))
            try:
                report = sweep(context, budget)
            except StoreFailed as error:
                log.warning("sweep.cut_short", area=area, reason=str(error))
            else:
                log.info("sweep.done", area=area, **asdict(report), complete=not budget.is_spent)


class DeleteTenants(Sweep):
    """Goes on with the deletion of the tenants that an operator has ordered."""

    name = "tasks.delete_tenants"

    def sweep(self, context: Context, *, max_time: timedelta) -> None:
        summary = tenants.sweep(context, max_time=max_time)
        log.log(
            logging.INFO if summary.finished or summary.left else logging.DEBUG,
            "sweep.done",
            **asdict(summary),
        )


class FillIndex(Sweep):
    """Makes the vectors of a new model, and of documents that were published without a model."""

    name = "tasks.fill_index"
    home_queue: ClassVar[str] = topology.SEARCH_MAINTENANCE

    def sweep(self, context: Context, *, max_time: timedelta) -> None:
        budget = Budget.of(max_time)
        try:
            summary = fill.sweep(context, is_spent=lambda: budget.is_spent)
        except EmbedderUnavailable as error:
            log.warning("sweep.cut_short", area="index", reason=str(error))
            return
        log.log(
            logging.INFO if any(asdict(summary).values()) else logging.DEBUG,
            "sweep.done",
            **asdict(summary),
        )


class WatchSteps(Sweep):
    """Publishes the events of steps and the facts again that the broker has lost."""

    name = "tasks.watch_steps"

    def sweep(self, context: Context, *, max_time: timedelta) -> None:
        budget = Budget.of(max_time)
        summary = watchdog.sweep(context, budget)
        facts = lost_facts.sweep(context, budget, is_queue_empty=self._is_notify_empty)
        log.log(
            logging.WARNING if summary.released or facts else logging.DEBUG,
            "watchdog.done",
            **asdict(summary),
            facts=facts,
        )

    def _is_notify_empty(self) -> bool:
        with self.app.connection_for_read() as connection:
            try:
                # Its stubs cover only what all transports share.
                channel: Any = connection.default_channel
                declared = channel.queue_declare(queues.NOTIFY, passive=True)
            except connection.channel_errors:
                # The relay declares a deleted queue again within a minute.
                return False
        return int(declared.message_count) == 0
