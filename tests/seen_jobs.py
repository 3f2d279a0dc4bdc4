"""A job with what its steps record, for assertions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.transfer import claim
from schemas.ids import JobId
from schemas.lifecycle import JobStatus
from schemas.steps import JobStage, StepName
from schemas.tables.jobs import Job
from schemas.tables.steps import Step


@dataclass(frozen=True, kw_only=True)
class SeenJob:
    status: JobStatus
    stage: JobStage
    result: dict[str, Any] | None
    started_at: datetime | None
    finished_at: datetime | None
    bytes_done: int
    bytes_total: int | None
    pages_done: int
    pages_total: int | None
    multipart_id: str | None
    digested_bytes: int
    digest_state: bytes | None
    lease_owner: str | None
    error_code: str | None
    error_detail: str | None
    error_retryable: bool | None


def seen_job(session: Session, job_id: JobId | None) -> SeenJob:
    job = session.get_one(Job, job_id, populate_existing=True)
    steps = {
        step.name: step
        for step in session.scalars(
            select(Step)
            .where(Step.job_id == job_id)
            .order_by(Step.ordinal)
            .execution_options(populate_existing=True)
        )
    }
    transfer, ingest = steps[StepName.TRANSFER], steps.get(StepName.INGEST)
    failed = next((step for step in steps.values() if step.error_code is not None), None)
    multipart_id, checkpoint = claim.decode_checkpoint(transfer.checkpoint)
    return SeenJob(
        status=job.status,
        stage=job.stage,
        result=job.result,
        started_at=job.started_at,
        finished_at=job.finished_at,
        bytes_done=transfer.done,
        bytes_total=transfer.total,
        pages_done=ingest.done if ingest else 0,
        pages_total=ingest.total if ingest else None,
        multipart_id=multipart_id,
        digested_bytes=checkpoint.digested_bytes if checkpoint else 0,
        digest_state=checkpoint.state if checkpoint else None,
        lease_owner=transfer.lease_owner,
        error_code=failed.error_code if failed else None,
        error_detail=failed.error_detail if failed else None,
        error_retryable=failed.error_retryable if failed else None,
    )
