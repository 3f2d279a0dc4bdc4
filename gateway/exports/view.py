"""An export as clients see it: its row, and the state of its job."""

from gateway.settings import API_PREFIX
from schemas.api.exports import ExportView
from schemas.api.jobs import JobError
from schemas.lifecycle import SETTLED_JOBS, JobStatus
from schemas.tables.exports import Export
from schemas.tables.jobs import Job
from schemas.tables.steps import Step


def show(export: Export, job: Job, step: Step | None) -> ExportView:
    """Return an export.

    Args:
        export: its row.
        job: its job.
        step: the only step of the job.
    """
    is_completed = job.status is JobStatus.COMPLETED
    return ExportView(
        export_id=export.id,
        job_id=job.id,
        kind=export.kind,
        format=export.format,
        filter=export.filter,
        columns=export.columns,
        bom=export.bom,
        raw=export.raw,
        status=job.status,
        rows=(export.rows if export.rows is not None else step.done if step else 0),
        size=export.size if is_completed else None,
        sha256=export.sha256 if is_completed else None,
        filename=filename_of(export),
        error=_error_of(step) if step is not None and job.status is JobStatus.FAILED else None,
        created_at=export.created_at,
        finished_at=job.finished_at,
        expires_at=export.expires_at if job.status in SETTLED_JOBS else None,
        status_url=f"{API_PREFIX}/exports/{export.id}",
        file_url=f"{API_PREFIX}/exports/{export.id}/file",
    )


def filename_of(export: Export) -> str:
    """Return the name that a download has: what the file has, and when it was asked for."""
    return f"{export.kind}-{export.created_at:%Y%m%d-%H%M%S}.{export.format}"


def _error_of(step: Step) -> JobError | None:
    if step.error_code is None:
        return None
    return JobError(
        code=step.error_code,
        detail=step.error_detail or "",
        retryable=bool(step.error_retryable),
    )
