"""Starts an export: its row, job, step and event are created in one transaction."""

from uuid import uuid4

import msgspec
import structlog

from gateway.context import Context
from gateway.db import SessionStatements, transaction_time
from gateway.exports import checks, queries
from gateway.http import idempotency
from gateway.settings import EVENT_SOURCE
from schemas.api.exports import CreateExport, ExportView
from schemas.events.exports import ExportRequested
from schemas.ids import ExportId, JobId, TenantId
from schemas.lifecycle import JobKind, Priority
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.events import emit
from schemas.tables.exports import Export
from schemas.tables.jobs import Job

log = structlog.stdlib.get_logger(__name__)


async def create_export(
    context: Context,
    *,
    tenant_id: TenantId,
    request: CreateExport,
    keyed: idempotency.KeyedRequest | None,
    traceparent: str | None,
) -> ExportView:
    """Add an export, or return that of an earlier request with the key.

    Raises:
        InvalidRequest: the kind has no such column or filter.
        TooManyWaiting, SystemBusy: too many steps wait.
        IdempotencyKeyReused: the key is bound to another request.
        ExportNotFound: the export of the earlier request was deleted.
    """
    checks.check(request)
    columns = checks.columns_of(request)
    export_id = ExportId(uuid4())
    async with context.database.tenant_lock(tenant_id) as session:
        statements = SessionStatements(session)
        bound_to = await idempotency.first_use(
            statements, keyed, tenant_id=tenant_id, resource_id=export_id
        )
        if bound_to == export_id:
            await context.backlog.check(statements, tenant_id=tenant_id)
            job_id = JobId(uuid4())
            now = await transaction_time(session)
            session.add(
                Job(id=job_id, tenant_id=tenant_id, kind=JobKind.EXPORT, stage=JobStage.EXPORT)
            )
            await session.flush()
            session.add(
                Export(
                    id=export_id,
                    tenant_id=tenant_id,
                    job_id=job_id,
                    kind=request.kind,
                    format=request.format,
                    filter=msgspec.to_builtins(request.filter),
                    columns=list(columns),
                    bom=request.bom,
                    raw=request.raw,
                    expires_at=now + context.settings.export_ttl,
                )
            )
            event_id = emit(
                session,
                ExportRequested(export_id=export_id, job_id=job_id),
                tenant_id=tenant_id,
                source=EVENT_SOURCE,
                now=now,
                traceparent=traceparent,
            )
            steps.add_step(
                session,
                StepName.EXPORT,
                job_id=job_id,
                tenant_id=tenant_id,
                priority=Priority.INTERACTIVE,
                event_id=event_id,
            )
            await session.flush()
            await session.execute(
                steps.release(tenant_id, StepName.EXPORT, settings=context.settings)
            )
            log.info("export.requested", export_id=str(export_id), job_id=str(job_id))
        session.expire_all()  # triggers have changed the job
        return await queries.export_of(session, tenant_id=tenant_id, export_id=ExportId(bound_to))
