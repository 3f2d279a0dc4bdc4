"""Jobs: what workers do for a client, in steps."""

from datetime import datetime
from typing import Any

import msgspec

from schemas.ids import JobId, UploadId
from schemas.lifecycle import JobKind, JobStatus, Priority, StepStatus
from schemas.steps import JobStage, StepName


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed; if `retryable`, uploading the file again may succeed."""

    code: str
    detail: str
    retryable: bool


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a job.

    `done` and `total` count in `unit`; `total` is null until it is known. `attempts` counts failed
    attempts. `place` is the approximate place in the line of the tenant's waiting steps, from 1; it
    is null in lists, and for a step that does not wait.
    """

    name: StepName
    status: StepStatus
    done: int
    total: int | None
    unit: str | None
    attempts: int
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: JobError | None
    place: int | None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `progress` is 0 to 100; it decreases only if the store has lost parts of the file.

    `result` is set once the job is completed. `steps` are in the order of the work; later steps are
    added when the step before them is completed.
    """

    job_id: JobId
    upload_id: UploadId | None
    kind: JobKind
    priority: Priority
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
    steps: list[StepView]
