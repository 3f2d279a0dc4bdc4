"""Finalizing an upload, and waiting for its job to settle."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, runtime_checkable
from uuid import uuid4

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.http import idempotency
from gateway.jobs import queries
from schemas.api.jobs import JobView
from schemas.api.uploads import DeclaredChunk, FinalizeUpload
from schemas.errors import DomainError, ErrorCode
from schemas.events.uploads import UploadFinalized
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobStage, JobStatus, StagingKind, UploadStatus
from schemas.tables.jobs import Job
from schemas.tables.outbox import emit
from schemas.tables.uploads import Chunk, Upload

log = structlog.stdlib.get_logger(__name__)

SOURCE: Final = "/waybill/gateway"
NAMED_MAX: Final = 20
"""Most missing chunks an error names; the manifest has them all."""


@runtime_checkable
class CheckCompleteUpload(Protocol):
    """Raises where a complete upload is not one its tenant may have; it is in the session already."""

    async def __call__(self, session: AsyncSession, upload: Upload) -> None: ...


class UploadNotOpen(DomainError):
    """The upload was given up and cannot be finalized."""

    code = ErrorCode.UPLOAD_NOT_OPEN

    def __init__(self, upload_id: UploadId, *, status: UploadStatus) -> None:
        super().__init__(f"upload {upload_id} cannot be finalized: it is {status}")


class UploadExpired(DomainError):
    """The time to send the upload is over."""

    code = ErrorCode.UPLOAD_EXPIRED

    def __init__(self, upload_id: UploadId, *, expired_at: datetime) -> None:
        super().__init__(f"upload {upload_id} expired at {expired_at.isoformat()}")


class UploadIncomplete(DomainError):
    """Chunks are missing."""

    code = ErrorCode.UPLOAD_INCOMPLETE
    retryable = True

    def __init__(self, upload_id: UploadId, *, missing: Sequence[int], chunk_count: int) -> None:
        named = ", ".join(str(index) for index in missing[:NAMED_MAX])
        more = f" and {len(missing) - NAMED_MAX} more" if len(missing) > NAMED_MAX else ""
        super().__init__(
            f"upload {upload_id} lacks {len(missing)} of {chunk_count} chunks: {named}{more}"
        )


class ManifestMismatch(DomainError):
    """The chunks the client names are not the stored ones, in order."""

    code = ErrorCode.MANIFEST_MISMATCH


class FileDigestMismatch(DomainError):
    """The client named another digest of the file before."""

    code = ErrorCode.FILE_DIGEST_MISMATCH

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"upload {upload_id} was declared with another sha256")


class FileDigestTooLate(DomainError):
    """The upload was finalized without a digest; nobody would look at this one."""

    code = ErrorCode.FILE_DIGEST_MISMATCH

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"upload {upload_id} was finalized without a sha256 already")


@dataclass(frozen=True, kw_only=True)
class StoredChunk:
    index: int
    size: int
    sha256: str


async def finalize(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    request: FinalizeUpload,
    keyed: idempotency.KeyedRequest | None,
    check: CheckCompleteUpload,
    traceparent: str | None,
    now: datetime,
) -> JobView:
    """Declare an upload complete: its job and its event come to be in this transaction.

    Finalizing again returns the same job, in whatever state it is by then.

    Raises:
        UploadNotFound, UploadNotOpen, UploadExpired: it cannot be finalized.
        UploadIncomplete: chunks are missing.
        ManifestMismatch: the declared chunks are not the stored ones.
        FileDigestMismatch: a sha256 other than the one declared before.
        FileDigestTooLate: a sha256, where it was finalized without.
        DomainError: what `check` raises; the upload stays open.
        IdempotencyKeyReused: the key is bound to another request.
    """
    upload = await session.scalar(
        select(Upload)
        .where(Upload.id == request.upload_id, Upload.tenant_id == tenant_id)
        # Whoever comes second waits here, and finds the job of the first.
        .with_for_update(),
    )
    if upload is None:
        raise queries.UploadNotFound(request.upload_id)
    if None not in (upload.sha256, request.sha256) and upload.sha256 != request.sha256:
        raise FileDigestMismatch(upload.id)
    job = await session.scalar(select(Job).where(Job.upload_id == upload.id))
    if job is not None and upload.sha256 is None and request.sha256 is not None:
        raise FileDigestTooLate(upload.id)
    job_id = JobId(uuid4()) if job is None else job.id
    bound_to = await idempotency.first_use(session, keyed, tenant_id=tenant_id, resource_id=job_id)
    if bound_to != job_id:
        raise idempotency.IdempotencyKeyReused
    if job is None:
        await _check_complete(session, upload, declared=request.chunks, now=now)
        job = make_job(
            session, upload, job_id=job_id, sha256=request.sha256, traceparent=traceparent, now=now
        )
        await session.flush()
        await check(session, upload)
    return queries.show(job)


def missing_of(stored: Sequence[StoredChunk], *, chunk_count: int) -> list[int]:
    """Return the indexes that are not there; a set is compared, never a sum of sizes."""
    present = {chunk.index for chunk in stored}
    return [index for index in range(chunk_count) if index not in present]


def check_declared(declared: Sequence[DeclaredChunk], *, stored: Sequence[StoredChunk]) -> None:
    """Compare what the client names with what is stored, one by one and in order.

    Raises:
        ManifestMismatch: with the first difference.
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
        if said.sha256 != kept.sha256:
            raise ManifestMismatch(f"chunk {kept.index} is declared with another sha256")


async def _check_complete(
    session: AsyncSession,
    upload: Upload,
    *,
    declared: Sequence[DeclaredChunk] | None,
    now: datetime,
) -> None:
    is_open = upload.status == UploadStatus.OPEN
    if upload.status == UploadStatus.EXPIRED or (is_open and upload.expires_at <= now):
        raise UploadExpired(upload.id, expired_at=upload.expires_at)
    if not is_open:
        raise UploadNotOpen(upload.id, status=upload.status)
    rows = await session.execute(
        select(Chunk.index, Chunk.size, Chunk.sha256)
        .where(Chunk.upload_id == upload.id)
        .order_by(Chunk.index),
    )
    stored = [
        StoredChunk(index=index, size=size, sha256=sha256.hex()) for index, size, sha256 in rows
    ]
    missing = missing_of(stored, chunk_count=upload.chunk_count)
    if missing:
        raise UploadIncomplete(upload.id, missing=missing, chunk_count=upload.chunk_count)
    if declared is not None:
        check_declared(declared, stored=stored)


def make_job(
    session: AsyncSession,
    upload: Upload,
    *,
    job_id: JobId,
    sha256: str | None,
    traceparent: str | None,
    now: datetime,
) -> Job:
    """Add the job of an upload whose bytes are all there, and the event that starts it."""
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
    upload.sha256 = upload.sha256 or sha256
    event = UploadFinalized(
        upload_id=upload.id,
        job_id=job.id,
        filename=upload.filename,
        # The size of an object somebody else put into the bucket is the worker's to find out.
        size=None if upload.staging == StagingKind.REFERENCE else upload.size,
    )
    session.add(job)
    emit(
        session,
        event,
        tenant_id=upload.tenant_id,
        source=SOURCE,
        now=now,
        traceparent=traceparent,
    )
    log.info("upload.finalized", upload_id=str(upload.id), job_id=str(job.id))
    return job
