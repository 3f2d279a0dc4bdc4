"""Adds the job that cancels or retries the jobs of a filter."""

from uuid import uuid4

import msgspec
import structlog

from gateway.context import Context
from gateway.db import SessionStatements, transaction_time
from gateway.http import idempotency
from gateway.http.security import Caller
from gateway.job_actions.queries import kinds_of
from gateway.jobs.queries import snapshot_of
from gateway.settings import EVENT_SOURCE
from schemas.api.jobs import ActOnJobs, JobView
from schemas.events.jobs import JobActionRequested
from schemas.ids import JobId
from schemas.lifecycle import JobKind, Priority
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.events import emit
from schemas.tables.jobs import Job

log = structlog.stdlib.get_logger(__name__)


async def act_on_jobs(
    context: Context,
    *,
    caller: Caller,
    request: ActOnJobs,
    keyed: idempotency.KeyedRequest | None,
    traceparent: str | None,
) -> JobView:
    """Add the job, or return the job of an earlier request with the key.

    Raises:
        TooManyWaiting, SystemBusy: too many steps wait.
        IdempotencyKeyReused: the key is bound to another request.
    """
    tenant_id, job_id = caller.tenant_id, JobId(uuid4())
    async with context.database.tenant_lock(tenant_id) as session:
        statements = SessionStatements(session)
        bound_to = await idempotency.first_use(
            statements, keyed, tenant_id=tenant_id, resource_id=job_id
        )
        if bound_to == job_id:
            await context.backlog.check(statements, tenant_id=tenant_id)
            now = await transaction_time(session)
            session.add(Job(id=job_id, tenant_id=tenant_id, kind=JobKind.BULK, stage=JobStage.BULK))
            await session.flush()
            event_id = emit(
                session,
                JobActionRequested(
                    job_id=job_id,
                    action=request.action,
                    filter=msgspec.json.encode(request.filter).decode(),
                    kinds=kinds_of(caller),
                    created_before=now,
                ),
                tenant_id=tenant_id,
                source=EVENT_SOURCE,
                now=now,
                traceparent=traceparent,
            )
            steps.add_step(
                session,
                StepName.BULK,
                job_id=job_id,
                tenant_id=tenant_id,
                priority=Priority.INTERACTIVE,
                event_id=event_id,
            )
            await session.flush()
            await session.execute(
                steps.release(tenant_id, StepName.BULK, settings=context.settings)
            )
            log.info("jobs.action_requested", job_id=str(job_id), action=request.action)
        return (await snapshot_of(statements, tenant_id=tenant_id, job_id=JobId(bound_to))).job
