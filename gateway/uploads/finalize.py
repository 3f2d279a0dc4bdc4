"""Finalizing an upload: its job and its event are created in one transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import transaction_time
from gateway.http import idempotency
from gateway.jobs.queries import show
from gateway.settings import EVENT_SOURCE
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
from schemas.lifecycle import JobStage, JobStatus, StagingKind, UploadStatus
from schemas.settings import QuotaSettings
from schemas.tables.jobs import Job
from schemas.tables.outbox import emit
from schemas.tables.uploads import Upload

log = structlog.stdlib.get_logger(__name__)


async def finalize_upload(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    request: FinalizeUpload,
    keyed: idempotency.KeyedRequest | None,
    settings: QuotaSettings,
    traceparent: str | None,
) -> JobView:
    """Declare an upload complete: add its job and its event to the session's transaction.

    A repetition returns the same job in its current state.

    Raises:
        UploadNotFound, UploadNotOpen, UploadExpired: the upload cannot be finalized.
        UploadIncomplete: chunks are missing.
        ManifestMismatch: the declared chunks are not the stored ones.
        FileDigestMismatch: the sha256 differs from the declared sha256, or is first declared now
            although the upload is already finalized.
        FileTooLarge, TypeNotAllowed, QuotaExceeded: the quotas forbid it; the upload stays open.
        IdempotencyKeyReused: the key is bound to another request.
    """
    # A concurrent request waits here for the row's lock, and then finds the job of the first
    # request.
    upload = await queries.upload_to_settle(
        session, tenant_id=tenant_id, upload_id=request.upload_id
    )
    if None not in (upload.sha256, request.sha256) and upload.sha256 != request.sha256:
        raise FileDigestMismatch(f"upload {upload.id} was declared with another sha256")
    job = await session.scalar(select(Job).where(Job.upload_id == upload.id))
    if job is not None and upload.sha256 is None and request.sha256 is not None:
        # A digest that is accepted now would never be checked.
        raise FileDigestMismatch(f"upload {upload.id} was finalized without a sha256")
    job_id = JobId(uuid4()) if job is None else job.id
    bound_to = await idempotency.first_use(session, keyed, tenant_id=tenant_id, resource_id=job_id)
    if bound_to != job_id:
        raise idempotency.IdempotencyKeyReused
    if job is None:
        now = await transaction_time(session)
        await _check_complete(session, upload, declared=request.chunks, now=now)
        upload.sha256 = upload.sha256 or request.sha256
        job = add_job(session, upload, job_id=job_id, traceparent=traceparent, now=now)
        await session.flush()
        await quotas.check_complete(session, upload, settings=settings)
    return show(job)


def add_job(
    session: AsyncSession, upload: Upload, *, job_id: JobId, traceparent: str | None, now: datetime
) -> Job:
    """Mark an upload as finalized; add its job, and the event that starts the job."""
    job = Job(
        id=job_id,
        tenant_id=upload.tenant_id,
        upload_id=upload.id,
        status=JobStatus.QUEUED,
        stage=JobStage.TRANSFER,
        bytes_done=0,
        bytes_total=upload.size,
        pages_done=0,
    )
    upload.status = UploadStatus.FINALIZED
    upload.finalized_at = now
    session.add(job)
    emit(
        session,
        UploadFinalized(
            upload_id=upload.id,
            job_id=job.id,
            filename=upload.filename,
            # The size of a referenced object is unknown; the worker measures it.
            size=None if upload.staging == StagingKind.REFERENCE else upload.size,
        ),
        tenant_id=upload.tenant_id,
        source=EVENT_SOURCE,
        now=now,
        traceparent=traceparent,
    )
    log.info("upload.finalized", upload_id=str(upload.id), job_id=str(job.id))
    return job


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
