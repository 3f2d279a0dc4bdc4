"""Jobs: the processing of finalized uploads."""

from datetime import datetime
from typing import Any

import msgspec

from schemas.ids import JobId, UploadId
from schemas.lifecycle import JobStage, JobStatus


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed; if `retryable`, uploading the file again may succeed."""

    code: str
    detail: str
    retryable: bool


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `progress` is 0 to 100; it decreases only if the store has lost parts of the file.

    `result` is set once the job is completed.
    """

    job_id: JobId
    upload_id: UploadId
    status: JobStatus
    stage: JobStage
    progress: int
    bytes_done: int
    bytes_total: int
    pages_done: int
    pages_total: int | None
    error: JobError | None
    result: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    stored_at: datetime | None
    finished_at: datetime | None
    status_url: str
