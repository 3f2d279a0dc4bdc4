"""Jobs: what workers do for a client, in steps."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from schemas.api.filters import Metadata, Time
from schemas.ids import BatchId, DocumentId, EventId, JobId, UploadId, WebhookId
from schemas.lifecycle import JobAction, JobKind, JobStatus, Priority, StepStatus
from schemas.steps import JobStage, StepName


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed; if `retryable`, a retry of the job or another upload of the file may succeed."""

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
            "`bytes`, `pages`, `seconds`, `rows`, `lines` or `jobs`; null for a step that does not count its work"
        ),
    ]
    attempts: Annotated[
        int, _described("failed attempts that were repeated; 0 if the first attempt succeeded")
    ]
    queued_at: Annotated[datetime, _described("when the step was added to the job")]
    started_at: Annotated[datetime | None, _described("when a worker first took up the step")]
    finished_at: datetime | None
    error: JobError | None
    task_id: Annotated[
        EventId | None,
        _described(
            "id of the Celery task that does the step, as Flower and the logs show it; the same for"
            " every attempt, and for steps that start together"
        ),
    ]
    place: Annotated[
        int | None,
        _described(
            "approximate place among the tenant's waiting steps of this name and priority, from 1;"
            " null in lists, and for a step whose status is not `waiting`"
        ),
    ]


class DocumentSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`summary` in the result of a job that stores or reads a document."""

    title: Annotated[str | None, _described("what the document says about itself")] = None
    language: str | None = None
    first_lines: Annotated[
        list[str], _described("of the first page that has text; long lines are cut")
    ] = []
    pages: int | None = None
    sentences: int = 0
    entities: int = 0
    missing: Annotated[
        list[str], _described("a sentence for each reason why pages or text are missing")
    ] = []


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job. Its fields of bytes are those of its step `transfer`, those of pages count `ingest` and `ingest_rest`."""

    job_id: JobId
    upload_id: Annotated[
        UploadId | None,
        _described(
            "null for a job of kind `reprocess`, `render`, `replay`, `export`, `batch` or `bulk`"
        ),
    ]
    document_id: Annotated[
        DocumentId | None,
        _described(
            "the document that is read again, or whose page is rendered; null for a job of another kind;"
            " `result` of a job of kind `upload` has it"
        ),
    ]
    webhook_id: Annotated[WebhookId | None, _described("the endpoint of a job of kind `replay`")]
    batch_id: Annotated[BatchId | None, _described("the batch whose line the job is")]
    task_id: Annotated[
        EventId | None, _described("id of the Celery task of the first step, see `steps`")
    ]
    kind: JobKind
    priority: Priority
    status: JobStatus
    stage: JobStage
    progress: Annotated[
        int,
        _described(
            "percent of the work; decreases only if the store has lost parts of the file, or if the job is retried"
        ),
    ]
    bytes_done: int
    bytes_total: Annotated[int, _described("0 until the size of a referenced object is known")]
    pages_done: int
    pages_total: int | None
    error: JobError | None
    result: Annotated[
        dict[str, Any] | None,
        _described(
            "what was stored and read, rendered, or exported, or how the lines of a batch ended; null"
            " unless `completed`. `summary` of a document has `title`, `language`, `first_lines`, `pages`, `sentences`, `entities` and"
            " `missing`: a sentence for each reason why pages or text are missing"
        ),
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


class JobSort(StrEnum):
    """The order of a list of jobs."""

    NEWEST_FIRST = "-created_at"
    OLDEST_FIRST = "created_at"


class JobFilter(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Which jobs of a tenant: those that all fields select; without a field, all.

    The fields are the query parameters of `GET /jobs`.
    """

    status: JobStatus | None = None
    kind: JobKind | None = None
    stage: Annotated[
        JobStage | None, _described("the step that the job is in, or in which it failed")
    ] = None
    priority: Priority | None = None
    batch_id: Annotated[BatchId | None, _described("the batch whose line the job is")] = None
    metadata: Annotated[
        Metadata | None, _described("names and values of the metadata of the job's upload")
    ] = None
    created_after: Time | None = None
    created_before: Time | None = None


class ActOnJobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cancels or retries every job that the filter selects."""

    action: JobAction
    filter: Annotated[JobFilter, _described("an empty filter selects every job")]
