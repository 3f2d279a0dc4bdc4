"""Cancels an upload, and purges a stored upload."""

from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_result,
    stop_after_delay,
    wait_exponential,
)

from gateway.context import Context
from gateway.db import Database, transaction_time
from gateway.settings import EVENT_SOURCE
from gateway.uploads import queries
from gateway.uploads.errors import DocumentStillBeingRead, UploadAlreadySettled
from schemas.api.uploads import UploadAbandoned
from schemas.events.uploads import UploadCancelled
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import (
    ACTIVE_JOBS,
    CANCELLABLE_UPLOADS,
    JobStage,
    JobStatus,
    UploadStatus,
)
from schemas.tables.documents import Document
from schemas.tables.jobs import Job
from schemas.tables.outbox import emit
from schemas.tables.uploads import Chunk, Upload

log = structlog.stdlib.get_logger(__name__)

PURGEABLE_UPLOADS: Final = CANCELLABLE_UPLOADS | {UploadStatus.STORED}

READER_WAIT_MAX: Final = timedelta(seconds=10)
"""How long a purge waits for a worker that reads the document."""

PAUSE_MIN: Final = timedelta(milliseconds=50)
PAUSE_MAX: Final = timedelta(milliseconds=500)


async def cancel_upload(
    context: Context,
    *,
    tenant_id: TenantId,
    upload_id: UploadId,
    purge: bool,
    unless_finalized: bool = False,
) -> UploadAbandoned:
    """Cancel an upload before or after it is finalized; a repetition changes nothing.

    A worker that transfers the upload notices within moments, and deletes the
    staged bytes and the object. Without a job the staged bytes are deleted here.

    Args:
        context: the context of the process.
        tenant_id: the tenant that asks.
        upload_id: the upload.
        purge: cancel a stored upload too, and delete its document.
        unless_finalized: refuse to cancel an upload that has a job.

    Raises:
        UploadNotFound: the tenant has no such upload.
        UploadAlreadySettled: the upload failed or expired; or it is stored and `purge` is false, or
            it is finalized and `unless_finalized` is true.
        DocumentStillBeingRead: the upload is cancelled, but a worker still reads its document.
    """
    async with context.database.tenant_lock(tenant_id) as session:
        upload, job_id = await _upload_and_job(session, tenant_id=tenant_id, upload_id=upload_id)
        if unless_finalized and job_id is not None:
            raise UploadAlreadySettled(upload_id)
        if upload.status != UploadStatus.CANCELLED:
            now = await transaction_time(session)
            await _cancel(session, upload, job_id=job_id, purge=purge, now=now)
        is_being_read = purge and not await _delete_document(session, upload_id)
    if is_being_read:
        await _delete_document_once_free(context.database, upload_id)
    if job_id is None:
        await context.staging.remove(upload_id, tenant_id=tenant_id)
    return UploadAbandoned(upload_id=upload_id, status=UploadStatus.CANCELLED, job_id=job_id)


async def _upload_and_job(
    session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId
) -> tuple[Upload, JobId | None]:
    """Return an upload and its job; lock an upload without a job, so that no job is added.

    An upload with a job is not locked: a worker locks the job before the upload, and so does
    `_cancel`.
    """
    upload = await queries.upload_of(session, tenant_id=tenant_id, upload_id=upload_id)
    job_id = await queries.job_id_of(session, upload_id)
    if job_id is None:
        async with session.begin_nested() as locking:
            upload = await queries.upload_to_settle(
                session, tenant_id=tenant_id, upload_id=upload_id
            )
            job_id = await queries.job_id_of(session, upload_id)
            if job_id is not None:
                # The upload was finalized between the two reads; the rollback releases its lock.
                await locking.rollback()
    return upload, job_id


async def _cancel(
    session: AsyncSession, upload: Upload, *, job_id: JobId | None, purge: bool, now: datetime
) -> None:
    """Update the job before its upload: a worker uses the same order, which prevents a deadlock."""
    if job_id is not None and not await _cancel_job(session, job_id, purge=purge, now=now):
        if await queries.job_status_of(session, job_id) != JobStatus.CANCELLED:
            raise UploadAlreadySettled(upload.id)
        # A concurrent repetition of this request has cancelled the job.
        return
    cancelled = await session.execute(
        update(Upload)
        .where(
            Upload.id == upload.id,
            Upload.status.in_(PURGEABLE_UPLOADS if purge else CANCELLABLE_UPLOADS),
        )
        .values(status=UploadStatus.CANCELLED)
        .returning(Upload.id),
    )
    if cancelled.first() is None:
        raise UploadAlreadySettled(upload.id)
    await session.execute(delete(Chunk).where(Chunk.upload_id == upload.id))
    emit(
        session,
        UploadCancelled(upload_id=upload.id, job_id=job_id, filename=upload.filename),
        tenant_id=upload.tenant_id,
        source=EVENT_SOURCE,
        now=now,
    )
    log.info("upload.cancelled", upload_id=str(upload.id), purge=purge)


async def _cancel_job(session: AsyncSession, job_id: JobId, *, purge: bool, now: datetime) -> bool:
    """Cancel a job if its state allows it; a purge also deletes its result and its error."""
    cancel = update(Job).where(Job.id == job_id).values(status=JobStatus.CANCELLED, finished_at=now)
    if purge:
        cancel = cancel.where(Job.status != JobStatus.CANCELLED).values(
            result=None, error_code=None, error_detail=None, error_retryable=None
        )
    else:
        cancel = cancel.where(Job.status.in_(ACTIVE_JOBS), Job.stage == JobStage.TRANSFER)
    return (await session.execute(cancel.returning(Job.id))).first() is not None


async def _delete_document(session: AsyncSession, upload_id: UploadId) -> bool:
    """Delete the document of an upload; False if a worker is reading it.

    Never waits for the worker: this transaction may have locked the job, which the worker also
    writes, so that a wait would be a deadlock.
    """
    documents = select(Document.id).where(Document.upload_id == upload_id)
    free = (await session.scalars(documents.with_for_update(skip_locked=True))).all()
    if free:
        # Pages, passages and entities are deleted with the document.
        await session.execute(delete(Document).where(Document.id.in_(free)))
        return True
    return await session.scalar(documents) is None


async def _delete_document_once_free(database: Database, upload_id: UploadId) -> None:
    """Delete a document as soon as the worker that reads it has stopped.

    Polls instead of waiting for a row lock: a few purges that wait in the database
    would hold every connection of the pool.

    Raises:
        DocumentStillBeingRead: the worker did not stop in time.
    """
    retrying = AsyncRetrying(
        retry=retry_if_result(lambda is_deleted: not is_deleted),
        stop=stop_after_delay(READER_WAIT_MAX),
        wait=wait_exponential(multiplier=PAUSE_MIN.total_seconds(), max=PAUSE_MAX),
    )

    async def delete_if_free() -> bool:
        async with database.transaction() as session:
            return await _delete_document(session, upload_id)

    try:
        await retrying(delete_if_free)
    except RetryError as error:
        raise DocumentStillBeingRead(upload_id) from error
