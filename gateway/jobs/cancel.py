"""Cancels a job that has no upload of its own."""

import structlog
from sqlalchemy import select

from gateway.context import Context
from gateway.db import SessionStatements
from gateway.jobs.queries import JobNotFound, snapshot_of
from schemas.api.jobs import JobView
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId
from schemas.lifecycle import JobKind, JobStatus
from schemas.tables import steps
from schemas.tables.jobs import Job

log = structlog.stdlib.get_logger(__name__)


class JobNotCancellable(DomainError):
    """The job has ended, or is cancelled with its upload."""

    code = ErrorCode.JOB_NOT_CANCELLABLE

    def __init__(self, job_id: JobId, *, reason: str) -> None:
        super().__init__(f"job {job_id} cannot be cancelled: {reason}")


async def cancel_job(context: Context, *, tenant_id: TenantId, job_id: JobId) -> JobView:
    """Cancel a replay; what it has done stays. A repetition returns the cancelled job.

    A worker notices in its next batch.

    Raises:
        JobNotFound: the tenant has no such job.
        JobNotCancellable: the job is of another kind, or has ended.
    """
    async with context.database.tenant_lock(tenant_id) as session:
        kind = await session.scalar(
            select(Job.kind).where(Job.id == job_id, Job.tenant_id == tenant_id)
        )
        if kind is None:
            raise JobNotFound(job_id)
        if kind is not JobKind.REPLAY:
            raise JobNotCancellable(
                job_id, reason="DELETE /uploads/{upload_id} cancels the jobs of an upload"
            )
        for name in (await session.scalars(steps.cancel(job_id))).all():
            await session.execute(steps.release(tenant_id, name, settings=context.settings))
            log.info("job.cancelled", job_id=str(job_id))
        job = (
            await snapshot_of(SessionStatements(session), tenant_id=tenant_id, job_id=job_id)
        ).job
    if job.status is not JobStatus.CANCELLED:
        raise JobNotCancellable(job_id, reason=f"it is {job.status}")
    return job
