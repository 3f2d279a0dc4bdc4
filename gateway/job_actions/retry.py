"""Retries a failed or cancelled job from the step that ended it."""

from functools import partial

from gateway.context import Context
from gateway.db import SessionStatements
from gateway.http.security import Caller
from gateway.job_actions.queries import job_to_change
from gateway.jobs.queries import snapshot_of
from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.runtime.jobs import retry


async def retry_job(context: Context, *, caller: Caller, job_id: JobId) -> JobView:
    """Let the failed or cancelled steps of a job wait for workers again.

    Raises:
        JobNotFound, ScopeMissing: see `job_to_change`.
        JobNotRetryable, JobSourceGone, JobBusy: see `schemas.runtime.jobs.retry`.
        TooManyWaiting, SystemBusy: too many steps wait.
    """
    async with context.database.tenant_lock(caller.tenant_id) as session:
        statements = SessionStatements(session)
        job = await job_to_change(session, caller, job_id=job_id)
        await context.backlog.check(statements, tenant_id=caller.tenant_id)
        await session.run_sync(
            partial(
                retry.retry_job,
                job=job,
                actor=f"api_key/{caller.key_id}",
                export_ttl=context.settings.export_ttl,
                settings=context.settings,
            )
        )
        return (await snapshot_of(statements, tenant_id=caller.tenant_id, job_id=job_id)).job
