"""Jobs in the form of the API."""

from datetime import UTC, datetime
from uuid import uuid4

from schemas.api.jobs import JobView
from schemas.ids import JobId, UploadId
from schemas.lifecycle import JobStage, JobStatus


def a_job(job_id: JobId, status: JobStatus = JobStatus.PROCESSING, *, detail: str = "") -> JobView:
    return JobView(
        job_id=job_id,
        upload_id=UploadId(uuid4()),
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
    )
