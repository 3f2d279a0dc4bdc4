"""Jobs: what workers do for a client, in steps."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from schemas.ids import DocumentId, JobId, UploadId, WebhookId
from schemas.lifecycle import JobKind, JobStatus, Priority, StepStatus
from schemas.steps import JobStage, StepName


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed; if `retryable`, uploading the file again may succeed."""

    code: str
    detail: str
    retryable: bool


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a job."""

    name: StepName
    status: StepStatus
    done: Annotated[int, _described("work done so far, counted in `unit`")]
    total: Annotated[
        int | None, _described("all work of the step, counted in `unit`; null until it is known")
    ]
    unit: Annotated[
        str | None,
        _described(
            "`bytes`, `pages`, `seconds` or `rows`; null for a step that does not count its work"
        ),
    ]
    attempts: Annotated[
        int, _described("failed attempts that were repeated; 0 if the first attempt succeeded")
    ]
    queued_at: Annotated[datetime, _described("when the step was added to the job")]
    started_at: Annotated[datetime | None, _described("when a worker first took up the step")]
    finished_at: datetime | None
    error: JobError | None
    place: Annotated[
        int | None,
        _described(
            "approximate place among the tenant's waiting steps of this name and priority, from 1;"
            " null in lists, and for a step whose status is not `waiting`"
        ),
    ]


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job. Its fields of bytes are those of its step `transfer`, those of pages count `ingest` and `ingest_rest`."""

    job_id: JobId
    upload_id: Annotated[
        UploadId | None,
        _described("null for a job of kind `reprocess`, `render`, `replay` or `export`"),
    ]
    document_id: Annotated[
        DocumentId | None,
        _described(
            "the document that is read again, or whose page is rendered; null for a job of another kind;"
            " `result` of a job of kind `upload` has it"
        ),
    ]
    webhook_id: Annotated[WebhookId | None, _described("the endpoint of a job of kind `replay`")]
    kind: JobKind
    priority: Priority
    status: JobStatus
    stage: JobStage
    progress: Annotated[
        int,
        _described("percent of the work; decreases only if the store has lost parts of the file"),
    ]
    bytes_done: int
    bytes_total: Annotated[int, _described("0 until the size of a referenced object is known")]
    pages_done: int
    pages_total: int | None
    error: JobError | None
    result: Annotated[
        dict[str, Any] | None,
        _described("what was stored and read, rendered, or exported; null unless `completed`"),
    ]
    created_at: datetime
    started_at: datetime | None
    stored_at: datetime | None
    finished_at: datetime | None
    status_url: str
    steps: Annotated[
        list[StepView],
        _described(
            "in the order of the work; a step is added when the step before it is completed;"
            " `metadata` and `ingest` run at the same time"
        ),
    ]
