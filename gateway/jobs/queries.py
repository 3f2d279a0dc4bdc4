"""Reads jobs and computes their progress."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.http.paging import CreatedPosition
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


async def jobs_of(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    status: JobStatus | None,
    after: CreatedPosition | None,
    limit: int,
) -> Sequence[Job]:
    """Return a tenant's jobs, newest first: `limit + 1` rows if there are more than `limit`."""
    wanted: list[ColumnElement[bool]] = [Job.tenant_id == tenant_id]
    if status is not None:
        wanted.append(Job.status == status)
    if after is not None:
        wanted.append(tuple_(Job.created_at, Job.id) < (after.created_at, after.id))
    jobs = await session.scalars(
        select(Job).where(*wanted).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1),
    )
    return jobs.all()


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
