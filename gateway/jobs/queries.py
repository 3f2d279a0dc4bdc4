"""Reads jobs with their steps."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias, cast

from sqlalchemy import ARRAY, ColumnElement, Select, Uuid, and_, any_, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.jobs.view import show
from schemas.api.jobs import JobView
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobStatus, StepStatus
from schemas.steps import StepName
from schemas.tables.jobs import Job
from schemas.tables.steps import Step, TenantSteps

Snapshot: TypeAlias = tuple[int, JobView]
"""The revision of a job (the number of its changes so far), and the job."""


class JobNotFound(DomainError):
    """The job does not exist, or belongs to another tenant."""

    code = ErrorCode.JOB_NOT_FOUND

    def __init__(self, job_id: JobId) -> None:
        super().__init__(f"there is no job {job_id}")


async def snapshot_of(session: AsyncSession, *, tenant_id: TenantId, job_id: JobId) -> Snapshot:
    """Return a tenant's job.

    Raises:
        JobNotFound: the tenant has no such job.
    """
    found = await _snapshots(session, Job.id == job_id, Job.tenant_id == tenant_id)
    if job_id not in found:
        raise JobNotFound(job_id)
    return found[job_id]


async def snapshots_of(
    session: AsyncSession, job_ids: Collection[JobId]
) -> Mapping[JobId, Snapshot]:
    """Return jobs of any tenants, by id; a job that does not exist is left out.

    Only for callers that have read each job as its tenant's before.
    """
    return await _snapshots(session, _is_one_of(job_ids))


async def revisions_of(session: AsyncSession, job_ids: Collection[JobId]) -> Mapping[JobId, int]:
    """Return the revision of each job, by id; a job that does not exist is left out."""
    found = await session.execute(select(Job.id, Job.revision).where(_is_one_of(job_ids)))
    return {row.id: row.revision for row in found}


async def job_of_upload(
    session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId
) -> JobView | None:
    """Return the job of a tenant's upload; None if there is no such job."""
    found = await _snapshots(session, Job.upload_id == upload_id, Job.tenant_id == tenant_id)
    return next((job for _, job in found.values()), None)


def jobs_of(tenant_id: TenantId, *, status: JobStatus | None) -> Select[Job]:
    """Return the query of a tenant's jobs, or only of the jobs with the given status."""
    query = select(Job).where(Job.tenant_id == tenant_id)
    return query if status is None else query.where(Job.status == status)


async def show_all(session: AsyncSession, jobs: Sequence[Job]) -> list[JobView]:
    """Return jobs with their steps, which are read in one query; places in line are left out."""
    steps = defaultdict[JobId, list[Step]](list)
    for step in await session.scalars(
        select(Step).where(Step.job_id.in_([job.id for job in jobs])).order_by(Step.ordinal)
    ):
        steps[step.job_id].append(step)
    return [show(job, steps[job.id]) for job in jobs]


def _is_one_of(job_ids: Collection[JobId]) -> ColumnElement[bool]:
    """Return a condition with one parameter: the text of the statement is always the same."""
    return Job.id == any_(literal(list(job_ids), ARRAY(Uuid)))


async def _snapshots(
    session: AsyncSession, *conditions: ColumnElement[bool]
) -> Mapping[JobId, Snapshot]:
    """Read jobs, their steps and the places of the steps in line.

    One statement reads one state of the database: a revision is never older than what it numbers.
    """
    found = await session.execute(
        select(Job, Step, TenantSteps.released)
        .outerjoin(Step, Step.job_id == Job.id)
        .outerjoin(
            TenantSteps,
            and_(
                Step.status == StepStatus.WAITING,
                TenantSteps.tenant_id == Step.tenant_id,
                TenantSteps.name == Step.name,
                TenantSteps.priority == Step.priority,
            ),
        )
        .where(*conditions)
        .order_by(Step.ordinal)
        # The session may hold rows that a trigger has changed since.
        .execution_options(populate_existing=True)
    )
    jobs: dict[JobId, Job] = {}
    steps = defaultdict[JobId, list[Step]](list)
    places = defaultdict[JobId, dict[StepName, int]](dict)
    for job, step, released in cast("Sequence[tuple[Job, Step | None, int | None]]", found.all()):
        jobs[job.id] = job
        if step is not None:
            steps[job.id].append(step)
            if released is not None:
                places[job.id][step.name] = max(1, step.ticket - released)
    return {
        job_id: (job.revision, show(job, steps[job_id], places=places[job_id]))
        for job_id, job in jobs.items()
    }
