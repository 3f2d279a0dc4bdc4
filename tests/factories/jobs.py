"""Jobs: in the form of the API, and the changes that workers make to their rows."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Update, func, update

from schemas.api.jobs import JobView
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobKind, JobStatus, Priority, StepStatus
from schemas.steps import STEPS, JobStage, StepName
from schemas.tables.jobs import Job
from schemas.tables.steps import Step

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def a_job(job_id: JobId, status: JobStatus = JobStatus.PROCESSING, *, detail: str = "") -> JobView:
    return JobView(
        job_id=job_id,
        upload_id=UploadId(uuid4()),
        document_id=None,
        webhook_id=None,
        batch_id=None,
        task_id=None,
        kind=JobKind.UPLOAD,
        priority=Priority.INTERACTIVE,
        status=status,
        stage=JobStage.TRANSFER,
        progress=0,
        bytes_done=0,
        bytes_total=0,
        pages_done=0,
        pages_total=None,
        error=None,
        result={"detail": detail},
        created_at=datetime.now(UTC),
        started_at=None,
        stored_at=None,
        finished_at=None,
        status_url="",
        steps=[],
    )


def a_step(
    name: StepName,
    status: StepStatus = StepStatus.RUNNING,
    *,
    done: int = 0,
    total: int | None = None,
    **columns: Any,  # noqa: ANN401  # any column
) -> Step:
    """Return a step that is in no database."""
    kind = STEPS[name]
    values = {"ticket": 1, "attempts": 0, "releases": 1, "queued_at": NOW, **columns}
    return Step(
        job_id=JobId(uuid4()),
        name=name,
        ordinal=kind.ordinal,
        tenant_id=TenantId(uuid4()),
        priority=Priority.INTERACTIVE,
        status=status,
        done=done,
        total=total,
        unit=kind.unit,
        **values,
    )


def a_job_row(status: JobStatus = JobStatus.PROCESSING, **columns: Any) -> Job:  # noqa: ANN401  # any column
    """Return the row of a job that is in no database."""
    values = {"revision": 1, "created_at": NOW, **columns}
    return Job(
        id=JobId(uuid4()),
        tenant_id=TenantId(uuid4()),
        kind=JobKind.UPLOAD,
        upload_id=UploadId(uuid4()),
        priority=Priority.INTERACTIVE,
        status=status,
        stage=JobStage.TRANSFER,
        **values,
    )


def step_update(
    job_id: str | UUID,
    name: StepName,
    status: StepStatus | None = None,
    **columns: Any,  # noqa: ANN401  # any column
) -> Update:
    """Return the statement with which a worker changes a step."""
    times: dict[str, Any] = {}
    if status == StepStatus.RUNNING:
        times = {"started_at": func.coalesce(Step.started_at, func.now())}
    elif status in {StepStatus.COMPLETED, StepStatus.FAILED}:
        times = {"finished_at": func.now()}
    values = times | columns | ({} if status is None else {"status": status})
    return update(Step).where(Step.job_id == job_id, Step.name == name).values(**values)
