"""A job as clients see it: its row, and what follows from its steps."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from gateway.settings import API_PREFIX
from schemas.api.jobs import JobError, JobView, StepView
from schemas.ids import BatchId, DocumentId, EventId, JobId, UploadId, WebhookId
from schemas.lifecycle import JobKind, JobStatus, Priority, StepStatus
from schemas.steps import ASIDE, STEPS, WEIGHTS, JobStage, StepName
from schemas.tables.jobs import Job
from schemas.tables.steps import Step


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a job that clients see, as in `Job`."""

    id: JobId
    upload_id: UploadId | None
    document_id: DocumentId | None
    webhook_id: WebhookId | None
    batch_id: BatchId | None
    kind: JobKind
    priority: Priority
    status: JobStatus
    stage: JobStage
    result: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class StepFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a step that clients see, as in `Step`."""

    name: StepName
    event_id: EventId | None
    status: StepStatus
    done: int
    total: int | None
    unit: str | None
    attempts: int
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error_code: str | None
    error_detail: str | None
    error_retryable: bool | None


def show(
    job: Job | JobFacts,
    steps: Sequence[Step | StepFacts],
    *,
    places: Mapping[StepName, int] | None = None,
) -> JobView:
    """Return a job with its timeline.

    Args:
        job: the job.
        steps: its steps, in the order of the work.
        places: the place in line of each step that waits; None in a list.
    """
    by_name = {step.name: step for step in steps}
    transfer, reading = by_name.get(StepName.TRANSFER), _reading_of(by_name)
    failed = next((step for step in steps if step.status == StepStatus.FAILED), None)
    return JobView(
        job_id=job.id,
        upload_id=job.upload_id,
        document_id=job.document_id,
        webhook_id=job.webhook_id,
        batch_id=job.batch_id,
        # A task has the id of the event that starts it.
        task_id=steps[0].event_id if steps else None,
        kind=job.kind,
        priority=job.priority,
        status=job.status,
        stage=job.stage,
        progress=progress(steps),
        bytes_done=transfer.done if transfer else 0,
        bytes_total=(transfer.total or 0) if transfer else 0,
        pages_done=reading.done if reading else 0,
        pages_total=reading.total if reading else None,
        # A purge also takes back the error.
        error=_error_of(failed) if failed and job.status == JobStatus.FAILED else None,
        result=job.result,
        created_at=job.created_at,
        started_at=job.started_at,
        stored_at=transfer.finished_at
        if transfer and transfer.status == StepStatus.COMPLETED
        else None,
        finished_at=job.finished_at,
        status_url=f"{API_PREFIX}/jobs/{job.id}",
        steps=[_show_step(step, place=(places or {}).get(step.name)) for step in steps],
    )


def progress(steps: Iterable[Step | StepFacts]) -> int:
    """Return the progress of a job in percent: the share of each step that is done.

    It is 100 only if every step is completed, except `index`. A failed or cancelled step keeps its last share.
    """
    work: dict[StepName, Step | StepFacts] = {step.name: step for step in steps}
    for name in ASIDE:
        work.pop(name, None)
    if work and all(step.status == StepStatus.COMPLETED for step in work.values()):
        return 100
    for name in (StepName.REPLAY, StepName.BATCH):
        if name in work:
            return _share(work[name], work, weight=WEIGHTS)
    possible = sum(
        kind.weight
        for kind in STEPS.values()
        # The job of a reprocessing stores nothing.
        if kind.name != StepName.TRANSFER or StepName.TRANSFER in work
    )
    return (
        WEIGHTS
        * sum(_share(step, work, weight=STEPS[step.name].weight) for step in work.values())
        // possible
    )


def _share(
    step: Step | StepFacts, work: Mapping[StepName, Step | StepFacts], *, weight: int
) -> int:
    """Return the done share of the weight of a step.

    The pages of `ingest_rest` count in the weight of `ingest`, which completes before all pages
    are read.
    """
    if step.name == StepName.INGEST and StepName.INGEST_REST in work:
        step = work[StepName.INGEST_REST]
    if step.status == StepStatus.COMPLETED:
        return weight
    total = step.total or 0
    return min(max(step.done, 0), total) * weight // total if total > 0 else 0


def _reading_of(
    steps: Mapping[StepName, Step | StepFacts],
) -> Step | StepFacts | None:
    """Return the step whose pages are those of the job; `ingest_rest` counts those of `ingest` too."""
    return steps.get(StepName.INGEST_REST) or steps.get(StepName.INGEST)


def _show_step(step: Step | StepFacts, *, place: int | None) -> StepView:
    return StepView(
        name=step.name,
        status=step.status,
        done=step.done,
        total=step.total,
        unit=step.unit,
        attempts=step.attempts,
        queued_at=step.queued_at,
        started_at=step.started_at,
        finished_at=step.finished_at,
        error=_error_of(step),
        task_id=step.event_id,
        place=place,
    )


def _error_of(step: Step | StepFacts) -> JobError | None:
    if step.error_code is None:
        return None
    return JobError(
        code=step.error_code,
        detail=step.error_detail or "",
        retryable=bool(step.error_retryable),
    )
