"""Cancels an upload, and purges a stored upload."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import uuid4

import structlog
from sqlalchemy import delete, null, select, union_all, update
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
from schemas.ids import EventId, JobId, TenantId, UploadId
from schemas.lifecycle import CANCELLABLE_UPLOADS, UploadStatus
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.documents import Document, PageImage, Revision
from schemas.tables.events import emit
from schemas.tables.jobs import IS_OPEN, READS_AGAIN, Job
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

    A worker that transfers the upload notices within moments. The step `cleanup` of the job deletes
    the staged bytes and the object. Without a job the staged bytes are deleted here.

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
        upload = await queries.upload_to_settle(session, tenant_id=tenant_id, upload_id=upload_id)
        job = await queries.job_row_of(session, upload_id)
        if unless_finalized and job is not None:
            raise UploadAlreadySettled(upload_id)
        if job is None and purge and upload.status is UploadStatus.STORED:
            job = await _add_job(session, upload)
        if upload.status != UploadStatus.CANCELLED:
            await _cancel(session, upload, job=job, purge=purge, settings=context.settings)
        is_being_read = purge and not await _delete_document(session, upload_id)
    if is_being_read:
        await _delete_document_once_free(context.database, upload_id)
    if job is None:
        await context.staging.remove(upload_id, tenant_id=tenant_id)
    return UploadAbandoned(
        upload_id=upload_id,
        status=UploadStatus.CANCELLED,
        job_id=None if job is None else job.id,
    )


async def _cancel(
    session: AsyncSession,
    upload: Upload,
    *,
    job: Job | None,
    purge: bool,
    settings: StepSettings,
) -> None:
    """Cancel a locked upload and its job.

    Raises:
        UploadAlreadySettled: the status of the upload or of its transfer forbids it.
    """
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
    event_id = emit(
        session,
        UploadCancelled(
            upload_id=upload.id, job_id=None if job is None else job.id, filename=upload.filename
        ),
        tenant_id=upload.tenant_id,
        source=EVENT_SOURCE,
        now=await transaction_time(session),
    )
    if job is not None:
        ended = (await session.scalars(steps.cancel(job.id))).all()
        if not purge and StepName.TRANSFER not in ended:
            raise UploadAlreadySettled(upload.id)
        # Before the cleanup is added: every cancel locks its counters after those of other steps.
        others = await _cancel_other_jobs(session, upload.id) if purge else ()
        await _add_cleanup(session, job, event_id=event_id)
        for name in dict.fromkeys((*ended, *others, StepName.CLEANUP)):
            await session.execute(steps.release(job.tenant_id, name, settings=settings))
    log.info("upload.cancelled", upload_id=str(upload.id), purge=purge)


async def _add_job(session: AsyncSession, upload: Upload) -> Job:
    """Add a job for the cleanup of a stored upload whose job is no longer kept."""
    job = Job(id=JobId(uuid4()), tenant_id=upload.tenant_id, upload_id=upload.id)
    session.add(job)
    await session.flush()
    return job


async def _cancel_other_jobs(session: AsyncSession, upload_id: UploadId) -> Sequence[StepName]:
    """Cancel the jobs that read the document of an upload again or render its pages.

    Returns:
        The steps that ended.
    """
    reading_again = (
        select(Job.id)
        .join(Document, Document.id == Job.document_id)
        .where(Document.upload_id == upload_id, READS_AGAIN, IS_OPEN)
    )
    rendering = (
        select(Job.id)
        .join(PageImage, PageImage.job_id == Job.id)
        .join(Revision, Revision.id == PageImage.revision_id)
        .join(Document, Document.id == Revision.document_id)
        .where(Document.upload_id == upload_id, IS_OPEN)
    )
    jobs = (await session.scalars(union_all(reading_again, rendering))).all()
    return (await session.scalars(steps.cancel(*jobs))).all()


async def _add_cleanup(session: AsyncSession, job: Job, *, event_id: EventId) -> None:
    """Take back the result of a job, and add the step that deletes its bytes and cancels it."""
    # Before the step is added, which increments the revision: clients then read the job again.
    await session.execute(update(Job).where(Job.id == job.id).values(result=null()))
    steps.add_step(
        session,
        StepName.CLEANUP,
        job_id=job.id,
        tenant_id=job.tenant_id,
        priority=job.priority,
        event_id=event_id,
    )
    await session.flush()


async def _delete_document(session: AsyncSession, upload_id: UploadId) -> bool:
    """Delete the document of an upload; False if a worker is reading it.

    Never waits for the worker: this transaction may have locked the job and its steps, which the
    worker also writes, so that a wait would be a deadlock.
    """
    documents = select(Document.id).where(Document.upload_id == upload_id)
    free = (await session.scalars(documents.with_for_update(skip_locked=True))).all()
    if free:
        # Revisions, pages and entities are deleted with the document.
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
