"""Finalizing an upload: its job, the first step and their event are created in one transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.backlog import Backlog
from gateway.db import SessionStatements
from gateway.http import idempotency
from gateway.jobs.queries import snapshot_of
from gateway.jobs.view import show
from gateway.settings import EVENT_SOURCE, Settings
from gateway.uploads import queries, quotas
from gateway.uploads.errors import (
    ManifestMismatch,
    UploadIncomplete,
    check_open,
)
from gateway.uploads.queries import StoredChunk
from schemas.api.jobs import JobView
from schemas.api.uploads import DeclaredChunk, FinalizeUpload
from schemas.errors import FileDigestMismatch
from schemas.events.uploads import UploadFinalized
from schemas.ids import JobId, TenantId
from schemas.lifecycle import JobKind, Priority, StagingKind, UploadStatus
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.events import emit
from schemas.tables.jobs import Job
from schemas.tables.steps import Share
from schemas.tables.uploads import Upload

log = structlog.stdlib.get_logger(__name__)


async def finalize_upload(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    request: FinalizeUpload,
    keyed: idempotency.KeyedRequest | None,
    settings: Settings,
    backlog: Backlog | None,
    traceparent: str | None,
) -> JobView:
    """Declare an upload complete: add its job and its event to the session's transaction.

    A repetition returns the same job in its current state.

    Args:
        session: the session of a transaction of the tenant.
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
    upload, now = await queries.upload_to_finalize(
        session, tenant_id=tenant_id, upload_id=request.upload_id
    )
    if None not in (upload.sha256, request.sha256) and upload.sha256 != request.sha256:
        raise FileDigestMismatch(f"upload {upload.id} was declared with another sha256")
    # An open upload has no job.
    job = (
        None if upload.status is UploadStatus.OPEN else await queries.job_row_of(session, upload.id)
    )
    if job is not None and upload.sha256 is None and request.sha256 is not None:
        # A digest that is accepted now would never be checked.
        raise FileDigestMismatch(f"upload {upload.id} was finalized without a sha256")
    job_id = JobId(uuid4()) if job is None else job.id
    bound_to = await idempotency.first_use(session, keyed, tenant_id=tenant_id, resource_id=job_id)
    if bound_to != job_id:
        raise idempotency.IdempotencyKeyReused
    if job is not None:
        found = await snapshot_of(SessionStatements(session), tenant_id=tenant_id, job_id=job_id)
        return found.job
    await _check_complete(session, upload, declared=request.chunks, now=now)
    upload.sha256 = upload.sha256 or request.sha256
    view = await add_job(
        session,
        upload,
        job_id=job_id,
        priority=request.priority or Priority.INTERACTIVE,
        settings=settings,
        backlog=backlog,
        traceparent=traceparent,
        now=now,
    )
    await quotas.check_complete(session, upload, settings=settings)
    return view


async def add_job(
    session: AsyncSession,
    upload: Upload,
    *,
    job_id: JobId,
    priority: Priority,
    settings: StepSettings,
    backlog: Backlog | None,
    traceparent: str | None,
    now: datetime,
) -> JobView:
    """Mark an upload as finalized; add its job with the first step, and the event of the step.

    The step is given to the broker at once if its tenant has room there.

    Raises:
        TooManyWaiting, SystemBusy: too many steps wait; the transaction must roll back.
    """
    if backlog is not None:
        await backlog.check_system(session)
    upload.status = UploadStatus.FINALIZED
    upload.finalized_at = now
    # Locks the tenant's usage, which comes before the counters of the steps.
    await session.flush()
    share = Share.of(await session.execute(steps.lock_share(upload.tenant_id, StepName.TRANSFER)))
    if backlog is not None:
        backlog.check_tenant(
            upload.tenant_id, waiting=share.tenant_waiting, finished=share.tenant_finished
        )
    job = Job(
        id=job_id,
        tenant_id=upload.tenant_id,
        kind=JobKind.UPLOAD,
        upload_id=upload.id,
        priority=priority,
    )
    session.add(job)
    # The size of a referenced object is unknown; the worker measures it.
    size = None if upload.staging == StagingKind.REFERENCE else upload.size
    event_id = emit(
        session,
        UploadFinalized(upload_id=upload.id, job_id=job_id, filename=upload.filename, size=size),
        tenant_id=upload.tenant_id,
        source=EVENT_SOURCE,
        now=now,
        traceparent=traceparent,
    )
    # The step refers to the job.
    await session.flush()
    step = steps.add_step(
        session,
        StepName.TRANSFER,
        job_id=job_id,
        tenant_id=upload.tenant_id,
        priority=priority,
        event_id=event_id,
        total=size,
    )
    steps.release_at_once(session, step, share=share, settings=settings)
    await session.flush()
    log.info("upload.finalized", upload_id=str(upload.id), job_id=str(job_id))
    place = share.place_of(step)
    return show(job, [step], places=None if place is None else {step.name: place})


def missing_of(stored: Sequence[StoredChunk], *, chunk_count: int) -> list[int]:
    """Return the indexes that are not stored; compares sets, because a sum could agree by chance."""
    present = {chunk.index for chunk in stored}
    return [index for index in range(chunk_count) if index not in present]


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


async def _check_complete(
    session: AsyncSession,
    upload: Upload,
    *,
    declared: Sequence[DeclaredChunk] | None,
    now: datetime,
) -> None:
    check_open(upload.id, status=upload.status, expires_at=upload.expires_at, now=now)
    stored = await queries.stored_chunks(session, upload.id)
    missing = missing_of(stored, chunk_count=upload.chunk_count)
    if missing:
        raise UploadIncomplete(upload.id, missing=missing, chunk_count=upload.chunk_count)
    if declared is not None:
        check_declared(declared, stored=stored)
