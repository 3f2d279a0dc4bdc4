"""How far an upload got after finalize."""

from datetime import datetime
from typing import Any

import msgspec

from schemas.ids import JobId, UploadId
from schemas.lifecycle import JobStage, JobStatus


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed; `retryable` says whether sending the file again may help."""

    code: str
    detail: str
    retryable: bool


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """`progress` is 0 to 100, and goes back only where the store has lost parts of the file.

    `result` is there once the job completed.
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
