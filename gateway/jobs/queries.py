"""Reads jobs and computes their progress."""

from typing import Final, TypeAlias

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.settings import API_PREFIX
from schemas.api.jobs import JobError, JobView
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId
from schemas.lifecycle import JobStage, JobStatus
from schemas.tables.jobs import Job

TRANSFER_SHARE: Final = 60
INGEST_SHARE: Final = 39

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
    job = await session.scalar(select(Job).where(Job.id == job_id, Job.tenant_id == tenant_id))
    if job is None:
        raise JobNotFound(job_id)
    return job.revision, show(job)


def jobs_of(tenant_id: TenantId, *, status: JobStatus | None) -> Select[Job]:
    """Return the query of a tenant's jobs, or only of the jobs with the given status."""
    query = select(Job).where(Job.tenant_id == tenant_id)
    return query if status is None else query.where(Job.status == status)


def show(job: Job) -> JobView:
    return JobView(
        job_id=job.id,
        upload_id=job.upload_id,
        status=job.status,
        stage=job.stage,
        progress=progress(
            status=job.status,
            stage=job.stage,
            bytes_done=job.bytes_done,
            bytes_total=job.bytes_total,
            pages_done=job.pages_done,
            pages_total=job.pages_total,
        ),
        bytes_done=job.bytes_done,
        bytes_total=job.bytes_total,
        pages_done=job.pages_done,
        pages_total=job.pages_total,
        error=JobError(
            code=job.error_code,
            detail=job.error_detail or "",
            retryable=bool(job.error_retryable),
        )
        if job.error_code is not None
        else None,
        result=job.result,
        created_at=job.created_at,
        started_at=job.started_at,
        stored_at=job.stored_at,
        finished_at=job.finished_at,
        status_url=f"{API_PREFIX}/jobs/{job.id}",
    )


def progress(
    *,
    status: JobStatus,
    stage: JobStage,
    bytes_done: int,
    bytes_total: int,
    pages_done: int,
    pages_total: int | None,
) -> int:
    """Return the progress: bytes count up to 60, pages up to 99; only a completed job has 100.

    A failed or cancelled job keeps its last value.
    """
    if status == JobStatus.COMPLETED or stage == JobStage.DONE:
        return 100
    if stage == JobStage.TRANSFER:
        return _share(bytes_done, of=bytes_total, points=TRANSFER_SHARE)
    return TRANSFER_SHARE + _share(pages_done, of=pages_total or 0, points=INGEST_SHARE)


def _share(done: int, *, of: int, points: int) -> int:
    return min(max(done, 0), of) * points // of if of > 0 else 0
