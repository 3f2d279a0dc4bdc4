"""Cancels an upload, and purges a stored upload."""

from datetime import timedelta
from functools import partial
from typing import Final
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_result,
    stop_after_delay,
    wait_exponential,
)

from gateway.context import Context
from gateway.db import Database
from gateway.settings import EVENT_SOURCE
from gateway.uploads import queries
from gateway.uploads.errors import DocumentStillBeingRead, UploadAlreadySettled
from schemas.api.uploads import UploadAbandoned
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import UploadStatus
from schemas.runtime.jobs import cancel
from schemas.runtime.jobs.cancel import Extent
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload

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
        if upload.status != UploadStatus.CANCELLED and not await session.run_sync(
            partial(
                cancel.cancel_upload,
                upload=upload,
                job=job,
                extent=Extent.ANY if purge else Extent.UNSTORED,
                source=EVENT_SOURCE,
                settings=context.settings,
            )
        ):
            raise UploadAlreadySettled(upload_id)
        is_being_read = purge and not await session.run_sync(
            partial(cancel.delete_document, upload_id=upload_id)
        )
    if is_being_read:
        await delete_document_once_free(context.database, upload_id)
    if job is None:
        await context.staging.remove(upload_id, tenant_id=tenant_id)
    return UploadAbandoned(
        upload_id=upload_id,
        status=UploadStatus.CANCELLED,
        job_id=None if job is None else job.id,
    )


async def _add_job(session: AsyncSession, upload: Upload) -> Job:
    """Add a job for the cleanup of a stored upload whose job is no longer kept."""
    job = Job(id=JobId(uuid4()), tenant_id=upload.tenant_id, upload_id=upload.id)
    session.add(job)
    await session.flush()
    return job


async def delete_document_once_free(database: Database, upload_id: UploadId) -> None:
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
            return await session.run_sync(partial(cancel.delete_document, upload_id=upload_id))

    try:
        await retrying(delete_if_free)
    except RetryError as error:
        raise DocumentStillBeingRead(upload_id) from error
