"""Finalizing an upload: its job, the first step and their event are created in one transaction.

Its statements are plain SQL in three batches: a client waits for every round trip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import uuid4

import structlog
from psycopg.types.numeric import Int8

from gateway.backlog import Backlog
from gateway.db import Statements
from gateway.http import idempotency
from gateway.jobs.queries import snapshot_of
from gateway.jobs.view import JobFacts, StepFacts, show
from gateway.settings import EVENT_SOURCE, Settings
from gateway.uploads import queries, quotas
from gateway.uploads.errors import ManifestMismatch
from gateway.uploads.queries import StoredChunk
from schemas.api.jobs import JobView
from schemas.api.uploads import DeclaredChunk, FinalizeUpload
from schemas.errors import FileDigestMismatch
from schemas.events.uploads import UploadFinalized
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobKind, JobStatus, Priority, StepStatus, UploadStatus
from schemas.policy.open_uploads import (
    UploadNotFound,
    check_all_stored,
    check_digest,
    check_open,
)
from schemas.steps import STEPS, JobStage, StepName
from schemas.tables.events import record_of
from schemas.tables.steps import LOCK_SHARE, Share

log = structlog.stdlib.get_logger(__name__)

FINALIZE: Final[LiteralString] = """
    UPDATE uploads SET status = 'finalized', finalized_at = now(), sha256 = %(sha256)s
    WHERE id = %(upload_id)s
    RETURNING id
"""

ADD_JOB: Final[LiteralString] = """
    WITH job AS (
        INSERT INTO jobs (id, tenant_id, kind, upload_id, priority, status, stage)
        VALUES (%(job_id)s, %(tenant_id)s, 'upload', %(upload_id)s, %(priority)s, 'queued', %(step)s)
        RETURNING created_at
    ), event AS (
        INSERT INTO events (id, tenant_id, type, subject, upload_id, job_id, body, traceparent)
        VALUES (%(id)s, %(tenant_id)s, %(type)s, %(subject)s, %(upload_id)s, %(job_id)s, %(body)s,
                %(traceparent)s)
    ), step AS (
        INSERT INTO steps (job_id, name, ordinal, tenant_id, priority, event_id, status, total, unit,
                           releases, overdue_at)
        VALUES (%(job_id)s, %(step)s, %(ordinal)s, %(tenant_id)s, %(priority)s, %(id)s, %(status)s,
                %(total)s, %(unit)s, %(releases)s, now() + %(overdue)s)
        RETURNING ticket, queued_at
    )
    SELECT job.created_at, step.ticket, step.queued_at FROM job, step
"""

GIVE_TO_BROKER: Final[LiteralString] = """
    INSERT INTO outbox (event_id, queue) VALUES (%(id)s, %(queue)s) RETURNING event_id
"""


@dataclass(frozen=True, kw_only=True)
class FinalizedUpload:
    """What the job of an upload needs; `size` is None for a reference, which a worker measures."""

    id: UploadId
    tenant_id: TenantId
    filename: str
    content_type: str | None
    sniffed_type: str | None
    sha256: str | None
    size: int | None


async def finalize_upload(
    statements: Statements,
    *,
    tenant_id: TenantId,
    request: FinalizeUpload,
    keyed: idempotency.KeyedRequest | None,
    settings: Settings,
    backlog: Backlog | None,
    traceparent: str | None,
) -> JobView:
    """Declare an upload complete: add its job and its event to a transaction.

    A repetition returns the same job in its current state.

    Args:
        statements: those of a transaction of the tenant, which ends with this call.
        tenant_id: the tenant that asks.
        request: the upload, and what the client declares about it.
        keyed: the request's `Idempotency-Key`.
        settings: the default quotas, and the tenant's share of the queues.
        backlog: refuses a new job while too many steps wait; None if the caller has checked that.
        traceparent: W3C trace context of the request.

    Raises:
        UploadNotFound, UploadNotOpen, UploadExpired: the upload cannot be finalized.
        UploadIncomplete: chunks are missing.
        ManifestMismatch: the declared chunks are not the stored ones.
        FileDigestMismatch: the sha256 differs from the declared sha256, or is first declared now
            although the upload is already finalized.
        FileTooLarge, TypeNotAllowed, QuotaExceeded: the quotas forbid it; the upload stays open.
        TooManyWaiting, SystemBusy: too many steps wait; the upload stays open.
        IdempotencyKeyReused: the key is bound to another request.
    """
    # A concurrent request waits here for the row's lock, and then finds the job of the first
    # request.
    uploads, chunks, jobs = await statements.batch(
        (queries.LOCK_UPLOAD, {"upload_id": request.upload_id, "tenant_id": tenant_id}),
        (queries.CHUNKS, {"upload_id": request.upload_id}),
        (queries.JOB_ID, {"upload_id": request.upload_id}),
    )
    if not uploads:
        raise UploadNotFound(request.upload_id)
    upload = uploads[0]
    check_digest(upload.id, declared=upload.sha256, again=request.sha256)
    if jobs and upload.sha256 is None and request.sha256 is not None:
        # A digest that is accepted now would never be checked.
        raise FileDigestMismatch(f"upload {upload.id} was finalized without a sha256")
    job_id: JobId = jobs[0].id if jobs else JobId(uuid4())
    bound_to = await idempotency.first_use(
        statements, keyed, tenant_id=tenant_id, resource_id=job_id
    )
    if bound_to != job_id:
        raise idempotency.IdempotencyKeyReused
    if jobs:
        return (await snapshot_of(statements, tenant_id=tenant_id, job_id=job_id)).job
    check_open(
        upload.id,
        status=UploadStatus(upload.status),
        expires_at=upload.expires_at,
        now=upload.now,
    )
    check_complete(
        upload.id,
        stored=queries.chunks_of(chunks),
        chunk_count=upload.chunk_count,
        declared=request.chunks,
    )
    return await add_job(
        statements,
        FinalizedUpload(
            id=upload.id,
            tenant_id=tenant_id,
            filename=upload.filename,
            content_type=upload.content_type,
            sniffed_type=upload.sniffed_type,
            sha256=upload.sha256 or request.sha256,
            size=upload.size,
        ),
        job_id=job_id,
        priority=request.priority or Priority.INTERACTIVE,
        settings=settings,
        backlog=backlog,
        traceparent=traceparent,
        now=upload.now,
    )


async def add_job(
    statements: Statements,
    upload: FinalizedUpload,
    *,
    job_id: JobId,
    priority: Priority,
    settings: Settings,
    backlog: Backlog | None,
    traceparent: str | None,
    now: datetime,
) -> JobView:
    """Mark an upload as finalized; add its job with the first step, and the event of the step.

    The step is given to the broker at once if its tenant has room there.

    Raises:
        FileTooLarge, TypeNotAllowed, QuotaExceeded: the quotas forbid it.
        TooManyWaiting, SystemBusy: too many steps wait. After any error the transaction must roll
            back.
    """
    if backlog is not None:
        await backlog.check_system(statements)
    kind = STEPS[StepName.TRANSFER]
    of_tenant = {"tenant_id": upload.tenant_id}
    # The first statement locks the tenant's usage, which comes before the counters of the steps.
    _, counters, quotas_and_usage = await statements.batch(
        (FINALIZE, {"upload_id": upload.id, "sha256": upload.sha256}),
        (LOCK_SHARE, of_tenant | {"name": kind.name.value}),
        (quotas.QUOTAS_AND_USAGE, of_tenant),
    )
    share = Share.of(counters)
    if backlog is not None:
        backlog.check_tenant(
            upload.tenant_id, waiting=share.tenant_waiting, finished=share.tenant_finished
        )
    if upload.size is not None:
        quotas.check_complete(
            quotas_and_usage[0],
            size=upload.size,
            sniffed_type=upload.sniffed_type,
            content_type=upload.content_type,
            settings=settings,
        )
    event = UploadFinalized(
        upload_id=upload.id, job_id=job_id, filename=upload.filename, size=upload.size
    )
    is_released = share.has_room(priority, settings=settings)
    values = record_of(
        event, tenant_id=upload.tenant_id, source=EVENT_SOURCE, now=now, traceparent=traceparent
    ) | {
        "priority": priority.value,
        "step": kind.name.value,
        "ordinal": kind.ordinal,
        "status": (StepStatus.QUEUED if is_released else StepStatus.WAITING).value,
        "total": None if upload.size is None else Int8(upload.size),
        "unit": kind.unit,
        "releases": int(is_released),
        "overdue": settings.step_overdue if is_released else None,
        "queue": kind.queue,
    }
    # As `add_step` and `release_at_once`.
    added = await statements.batch(
        (ADD_JOB, values), *([(GIVE_TO_BROKER, values)] if is_released else []), is_last=True
    )
    row = added[0][0]
    log.info("upload.finalized", upload_id=str(upload.id), job_id=str(job_id))
    job = JobFacts(
        id=job_id,
        upload_id=upload.id,
        document_id=None,
        webhook_id=None,
        batch_id=None,
        kind=JobKind.UPLOAD,
        priority=priority,
        status=JobStatus.QUEUED,
        stage=JobStage.TRANSFER,
        result=None,
        created_at=row.created_at,
        started_at=None,
        finished_at=None,
    )
    step = StepFacts(
        name=kind.name,
        event_id=values["id"],
        status=StepStatus.QUEUED if is_released else StepStatus.WAITING,
        done=0,
        total=upload.size,
        unit=kind.unit,
        attempts=0,
        queued_at=row.queued_at,
        started_at=None,
        finished_at=None,
        error_code=None,
        error_detail=None,
        error_retryable=None,
    )
    places = {} if is_released else {kind.name: share.place_of(row.ticket, priority=priority)}
    return show(job, [step], places=places)


def check_complete(
    upload_id: UploadId,
    *,
    stored: Sequence[StoredChunk],
    chunk_count: int,
    declared: Sequence[DeclaredChunk] | None,
) -> None:
    """Check that every chunk is stored, and that the declared chunks, if any, are the stored ones.

    Raises:
        UploadIncomplete: chunks are missing.
        ManifestMismatch: the declared chunks are not the stored ones.
    """
    check_all_stored(upload_id, stored=(each.index for each in stored), chunk_count=chunk_count)
    if declared is not None:
        check_declared(declared, stored=stored)


def check_declared(declared: Sequence[DeclaredChunk], *, stored: Sequence[StoredChunk]) -> None:
    """Compare the declared chunks with the stored chunks, in order.

    Raises:
        ManifestMismatch: names the first difference.
    """
    if len(declared) != len(stored):
        raise ManifestMismatch(f"{len(declared)} chunks are declared, {len(stored)} are stored")
    for said, kept in zip(declared, stored, strict=True):
        if said.index != kept.index:
            raise ManifestMismatch(f"chunk {said.index} is declared in the place of {kept.index}")
        if said.size != kept.size:
            raise ManifestMismatch(
                f"chunk {kept.index} is declared with {said.size} bytes and has {kept.size}"
            )
        if said.sha256 != kept.sha256.hex():
            raise ManifestMismatch(f"chunk {kept.index} is declared with another sha256")
