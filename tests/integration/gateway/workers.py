"""The changes that workers make to jobs, each in the order of locks of a worker."""

from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from schemas.ids import EventId, JobId
from schemas.lifecycle import StepStatus, UploadStatus
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from schemas.tables.uploads import Upload
from tests.factories.jobs import step_update

RESULT: Final = {"document_id": "x"}


async def advance(session: AsyncSession, job_id: str, *, done: int) -> None:
    """Record the progress of a transfer, which begins if it has not begun."""
    await session.execute(step_update(job_id, StepName.TRANSFER, StepStatus.RUNNING, done=done))


async def store(
    session: AsyncSession,
    job_id: str,
    *,
    will_be_read: bool = False,
    settings: StepSettings | None = None,
) -> None:
    """Complete a transfer; add the next step if the document will be read."""
    job = await _locked(session, job_id, upload_status=UploadStatus.STORED)
    await session.execute(step_update(job_id, StepName.TRANSFER, StepStatus.RUNNING))
    await session.execute(
        step_update(
            job_id, StepName.TRANSFER, StepStatus.COMPLETED, done=func.coalesce(Step.total, 0)
        )
    )
    await session.execute(update(Job).where(Job.id == job.id).values(result=RESULT))
    names = [StepName.TRANSFER]
    if will_be_read:
        steps.add_step(
            session,
            StepName.INGEST,
            job_id=job.id,
            tenant_id=job.tenant_id,
            priority=job.priority,
            event_id=EventId(uuid4()),
        )
        await session.flush()
        names.append(StepName.INGEST)
    await _release(session, job, *names, settings=settings)


async def fail(
    session: AsyncSession,
    job_id: str,
    *,
    code: str,
    name: StepName = StepName.TRANSFER,
    settings: StepSettings | None = None,
    **columns: Any,  # noqa: ANN401  # any column
) -> None:
    """Fail a step for good."""
    failed = UploadStatus.FAILED if name == StepName.TRANSFER else UploadStatus.STORED
    job = await _locked(session, job_id, upload_status=failed)
    await session.execute(step_update(job_id, name, StepStatus.FAILED, error_code=code, **columns))
    await _release(session, job, name, settings=settings)


async def _locked(session: AsyncSession, job_id: str, *, upload_status: UploadStatus) -> Job:
    """Lock the upload of a job by the change of its status, before the steps of the job."""
    job = (await session.scalars(select(Job).where(Job.id == JobId(UUID(job_id))))).one()
    await session.execute(
        update(Upload).where(Upload.id == job.upload_id).values(status=upload_status)
    )
    return job


async def _release(
    session: AsyncSession, job: Job, *names: StepName, settings: StepSettings | None
) -> None:
    for name in names:
        await session.execute(
            steps.release(job.tenant_id, name, settings=settings or StepSettings())
        )
