"""Deletes an export: it is hidden at once, and a sweep deletes its file."""

import structlog
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import transaction_time
from gateway.exports import queries
from gateway.exports.errors import ExportNotFound
from schemas.ids import ExportId, TenantId
from schemas.settings import StepSettings
from schemas.tables import steps
from schemas.tables.exports import Export

log = structlog.stdlib.get_logger(__name__)


async def delete_export(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    export_id: ExportId,
    settings: StepSettings,
) -> None:
    """Delete a tenant's export; the job of one that has not ended is cancelled.

    Raises:
        ExportNotFound: the tenant has no such export.
    """
    now = await transaction_time(session)
    job_id = await session.scalar(
        update(Export)
        .where(Export.id == export_id, Export.tenant_id == tenant_id, Export.deleted_at.is_(None))
        .values(**queries.deleted_at(now))
        .returning(Export.job_id)
    )
    if job_id is None:
        raise ExportNotFound(export_id)
    for name in (await session.scalars(steps.cancel(job_id))).all():
        await session.execute(steps.release(tenant_id, name, settings=settings))
    log.info("export.deleted", export_id=str(export_id))
