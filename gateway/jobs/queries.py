"""Reads jobs with their steps.

A client that polls reads one job, so those statements are plain SQL. One statement reads one state
of the database: a revision is never older than what it numbers.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, LiteralString

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import Statements
from gateway.job_watch import Snapshot
from gateway.jobs.view import JobFacts, StepFacts, show
from schemas.api.jobs import JobView
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobKind, JobStatus, Priority, StepStatus
from schemas.steps import JobStage, StepName
from schemas.tables.jobs import Job
from schemas.tables.steps import Step

_JOBS_WITH_STEPS: Final[LiteralString] = """
    SELECT jobs.id, jobs.revision, jobs.upload_id, jobs.document_id, jobs.webhook_id, jobs.batch_id,
           jobs.kind, jobs.priority, jobs.status, jobs.stage, jobs.result, jobs.created_at, jobs.started_at, jobs.finished_at,
           steps.name AS step, steps.event_id, steps.status AS step_status, steps.done, steps.total, steps.unit,
           steps.attempts, steps.queued_at, steps.started_at AS step_started_at,
           steps.finished_at AS step_finished_at, steps.error_code, steps.error_detail,
           steps.error_retryable, steps.ticket - counters.released AS place
    FROM jobs
    LEFT JOIN steps ON steps.job_id = jobs.id
    LEFT JOIN tenant_steps AS counters ON steps.status = 'waiting'
        AND counters.tenant_id = steps.tenant_id AND counters.name = steps.name
        AND counters.priority = steps.priority
"""

JOB: Final[LiteralString] = (
    _JOBS_WITH_STEPS
    + "WHERE jobs.id = %(job_id)s AND jobs.tenant_id = %(tenant_id)s ORDER BY steps.ordinal"
)

JOB_OF_UPLOAD: Final[LiteralString] = (
    _JOBS_WITH_STEPS
    + "WHERE jobs.upload_id = %(upload_id)s AND jobs.tenant_id = %(tenant_id)s ORDER BY steps.ordinal"
)

JOBS: Final[LiteralString] = (
    _JOBS_WITH_STEPS + "WHERE jobs.id = ANY (%(job_ids)s) ORDER BY steps.ordinal"
)

REVISIONS: Final[LiteralString] = "SELECT id, revision FROM jobs WHERE id = ANY (%(job_ids)s)"


class JobNotFound(DomainError):
    """The job does not exist, or belongs to another tenant."""

    code = ErrorCode.JOB_NOT_FOUND

    def __init__(self, job_id: JobId) -> None:
        super().__init__(f"there is no job {job_id}")


async def snapshot_of(statements: Statements, *, tenant_id: TenantId, job_id: JobId) -> Snapshot:
    """Return a tenant's job.

    Raises:
        JobNotFound: the tenant has no such job.
    """
    rows = await statements.rows(JOB, {"job_id": job_id, "tenant_id": tenant_id})
    if not rows:
        raise JobNotFound(job_id)
    return _snapshot(rows)


async def snapshots_of(
    statements: Statements, job_ids: Collection[JobId]
) -> Mapping[JobId, Snapshot]:
    """Return jobs of any tenants, by id; a job that does not exist is left out.

    Only for callers that have read each job as its tenant's before.
    """
    by_job = defaultdict[JobId, list[Any]](list)
    for row in await statements.rows(JOBS, {"job_ids": list(job_ids)}):
        by_job[row.id].append(row)
    return {job_id: _snapshot(rows) for job_id, rows in by_job.items()}


async def revisions_of(statements: Statements, job_ids: Collection[JobId]) -> Mapping[JobId, int]:
    """Return the revision of each job, by id; a job that does not exist is left out."""
    rows = await statements.rows(REVISIONS, {"job_ids": list(job_ids)})
    return {row.id: row.revision for row in rows}


async def job_of_upload(
    statements: Statements, *, tenant_id: TenantId, upload_id: UploadId
) -> Snapshot | None:
    """Return the job of a tenant's upload; None if there is no such job."""
    values = {"upload_id": upload_id, "tenant_id": tenant_id}
    rows = await statements.rows(JOB_OF_UPLOAD, values)
    return _snapshot(rows) if rows else None


async def show_all(session: AsyncSession, jobs: Sequence[Job]) -> list[JobView]:
    """Return jobs with their steps, which are read in one query; places in line are left out."""
    steps = defaultdict[JobId, list[Step]](list)
    for step in await session.scalars(
        select(Step).where(Step.job_id.in_([job.id for job in jobs])).order_by(Step.ordinal)
    ):
        steps[step.job_id].append(step)
    return [show(job, steps[job.id]) for job in jobs]


def _snapshot(rows: Sequence[Any]) -> Snapshot:
    """Return the job of the rows of one job, in the order of its steps."""
    first = rows[0]
    job = JobFacts(
        id=first.id,
        upload_id=first.upload_id,
        document_id=first.document_id,
        webhook_id=first.webhook_id,
        batch_id=first.batch_id,
        kind=JobKind(first.kind),
        priority=Priority(first.priority),
        status=JobStatus(first.status),
        stage=JobStage(first.stage),
        result=first.result,
        created_at=first.created_at,
        started_at=first.started_at,
        finished_at=first.finished_at,
    )
    steps, places = [], {}
    for row in rows:
        if row.step is None:
            continue
        name = StepName(row.step)
        steps.append(
            StepFacts(
                name=name,
                event_id=row.event_id,
                status=StepStatus(row.step_status),
                done=row.done,
                total=row.total,
                unit=row.unit,
                attempts=row.attempts,
                queued_at=row.queued_at,
                started_at=row.step_started_at,
                finished_at=row.step_finished_at,
                error_code=row.error_code,
                error_detail=row.error_detail,
                error_retryable=row.error_retryable,
            )
        )
        if row.place is not None:
            places[name] = max(1, row.place)
    return Snapshot(revision=first.revision, job=show(job, steps, places=places))
