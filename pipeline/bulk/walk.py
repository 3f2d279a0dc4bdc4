"""Walks the jobs of a filter, from the oldest on, and cancels or retries each of them.

The change of a job and the checkpoint are one transaction: a worker that is killed repeats nothing,
and counts nothing twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, assert_never

import msgspec
import structlog
from sqlalchemy.orm import Session

from pipeline.settings import Settings
from schemas.api.jobs import JobFilter, JobSort
from schemas.events.jobs import JobActionRequested
from schemas.ids import TenantId
from schemas.lifecycle import JobAction, JobStatus
from schemas.runtime.jobs import cancel, retry
from schemas.runtime.jobs.errors import (
    JobBusy,
    JobNotCancellable,
    JobNotRetryable,
    JobSourceGone,
)
from schemas.tables.job_filters import JobPosition, JobScan
from schemas.tables.jobs import Job

SOURCE: Final = "/waybill/pipeline/bulk"

BATCH: Final = 100
"""Jobs that one statement reads."""

_STATUSES: Final[Mapping[JobAction, Sequence[JobStatus]]] = {
    # In this order: a job that a worker takes up meanwhile is among the second.
    JobAction.CANCEL: (JobStatus.QUEUED, JobStatus.PROCESSING),
    JobAction.RETRY: (JobStatus.FAILED,),
}
"""The statuses of the jobs that an action changes, if the filter does not name one."""

log = structlog.stdlib.get_logger(__name__)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the walk goes on, and what it has done.

    Attributes:
        status: index of the status whose jobs are walked.
        after: the last job of this status that was read; None before the first.
        done: jobs that were cancelled or retried.
        skipped: jobs that had ended meanwhile, or cannot be retried.
        failed: jobs that were busy; a later action may succeed.
    """

    status: int = 0
    after: JobPosition | None = None
    done: int = 0
    skipped: int = 0
    failed: int = 0

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Self:
        return cls() if stored is None else msgspec.convert(stored, cls)

    @property
    def seen(self) -> int:
        return self.done + self.skipped + self.failed

    def encoded(self) -> dict[str, Any]:
        encoded: dict[str, Any] = msgspec.to_builtins(self)
        return encoded


class Walk:
    """The jobs of an order, one status after the other."""

    def __init__(
        self, order: JobActionRequested, *, tenant_id: TenantId, settings: Settings
    ) -> None:
        self._order = order
        self._settings = settings
        chosen = msgspec.json.decode(order.filter, type=JobFilter)
        self._scans = [
            JobScan.of(
                msgspec.structs.replace(
                    chosen,
                    status=status,
                    created_before=min(
                        chosen.created_before or order.created_before, order.created_before
                    ),
                ),
                tenant_id=tenant_id,
            )
            for status in statuses_of(order.action, chosen)
        ]

    def is_over(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.status >= len(self._scans)

    def read(self, session: Session, checkpoint: Checkpoint) -> Sequence[tuple[JobPosition, bool]]:
        """Return the next jobs, each with whether the filter selects it; fewer than `BATCH` at the end."""
        statement = self._scans[checkpoint.status].statement(
            after=checkpoint.after, limit=BATCH, sort=JobSort.OLDEST_FIRST
        )
        return [
            (JobPosition(created_at=row.created_at, id=row.id), row.is_match)
            for row in session.execute(statement)
        ]

    def act(self, session: Session, checkpoint: Checkpoint, position: JobPosition) -> Checkpoint:
        """Cancel or retry a job; return the checkpoint after it.

        A job that cannot be changed is left as it is, and counted.
        """
        following = msgspec.structs.replace(checkpoint, after=position)
        job = session.get(Job, position.id)
        if job is None or job.kind not in self._order.kinds:
            return following
        try:
            with session.begin_nested():
                self._change(session, job)
        except (JobNotCancellable, JobNotRetryable, JobSourceGone) as error:
            log.debug("bulk.job_skipped", of_job=str(position.id), reason=str(error))
            return msgspec.structs.replace(following, skipped=checkpoint.skipped + 1)
        except JobBusy as error:
            log.info("bulk.job_busy", of_job=str(position.id), reason=str(error))
            return msgspec.structs.replace(following, failed=checkpoint.failed + 1)
        return msgspec.structs.replace(following, done=checkpoint.done + 1)

    def _change(self, session: Session, job: Job) -> None:
        match self._order.action:
            case JobAction.CANCEL:
                if not cancel.cancel_job(session, job, source=SOURCE, settings=self._settings):
                    raise JobNotCancellable(job.id, status=job.status)
                if job.upload_id is not None:
                    # If a worker reads the document, its cleanup deletes the document.
                    cancel.delete_document(session, job.upload_id)
            case JobAction.RETRY:
                retry.retry_job(
                    session,
                    job,
                    actor=f"job/{self._order.job_id}",
                    export_ttl=self._settings.export_ttl,
                    settings=self._settings,
                )
            case _:
                assert_never(self._order.action)


def statuses_of(action: JobAction, chosen: JobFilter) -> Sequence[JobStatus]:
    """Return the statuses of the jobs that an action changes; cancelled jobs are retried only if the filter says so."""
    if action is JobAction.RETRY and chosen.status is JobStatus.CANCELLED:
        return (JobStatus.CANCELLED,)
    possible = _STATUSES[action]
    return [each for each in possible if chosen.status in {None, each}]
