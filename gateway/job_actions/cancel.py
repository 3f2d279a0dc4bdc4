"""Cancels a job in whatever step it is."""

from functools import partial

from gateway.context import Context
from gateway.db import SessionStatements
from gateway.http.security import Caller
from gateway.job_actions.queries import job_to_change
from gateway.jobs.queries import snapshot_of
from gateway.settings import EVENT_SOURCE
from gateway.uploads.cancel import delete_document_once_free
from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.runtime.jobs import cancel
from schemas.runtime.jobs.errors import JobNotCancellable


async def cancel_job(context: Context, *, caller: Caller, job_id: JobId) -> JobView:
    """Cancel a job that has not ended; a repetition returns the cancelled job.

    Raises:
        JobNotFound, ScopeMissing: see `job_to_change`.
        JobNotCancellable: the job is completed or failed.
        DocumentStillBeingRead: the job is cancelled, but a worker still reads its document.
    """
    async with context.database.tenant_lock(caller.tenant_id) as session:
        job = await job_to_change(session, caller, job_id=job_id)
        is_cancelled = await session.run_sync(
            partial(cancel.cancel_job, job=job, source=EVENT_SOURCE, settings=context.settings)
        )
        if not is_cancelled:
            await session.refresh(job)
            raise JobNotCancellable(job_id, status=job.status)
        is_being_read = job.upload_id is not None and not await session.run_sync(
            partial(cancel.delete_document, upload_id=job.upload_id)
        )
        statements = SessionStatements(session)
        shown = await snapshot_of(statements, tenant_id=caller.tenant_id, job_id=job_id)
    if is_being_read and job.upload_id is not None:
        await delete_document_once_free(context.database, job.upload_id)
    return shown.job
