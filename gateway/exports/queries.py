"""Reads exports with the state of their jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.exports import view
from gateway.exports.errors import ExportExpired, ExportNotFound, ExportNotReady
from schemas.api.exports import ExportView
from schemas.ids import ExportId, TenantId
from schemas.lifecycle import ExportFormat, JobStatus
from schemas.object_keys import ObjectKey
from schemas.steps import StepName
from schemas.tables.exports import Export
from schemas.tables.jobs import Job
from schemas.tables.steps import Step


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """The file of an export, in the object store; `filename` is the name that a download has."""

    key: ObjectKey
    filename: str
    format: ExportFormat


def exports_of(tenant_id: TenantId) -> Select[Export]:
    """Return the query of a tenant's exports."""
    return select(Export).where(Export.tenant_id == tenant_id, Export.deleted_at.is_(None))


async def export_of(
    session: AsyncSession, *, tenant_id: TenantId, export_id: ExportId
) -> ExportView:
    """Return a tenant's export.

    Raises:
        ExportNotFound: the tenant has no such export.
    """
    found = await session.scalar(exports_of(tenant_id).where(Export.id == export_id))
    if found is None:
        raise ExportNotFound(export_id)
    return (await show_all(session, [found]))[0]


async def file_of(session: AsyncSession, *, tenant_id: TenantId, export_id: ExportId) -> StoredFile:
    """Return the file of a tenant's export.

    Raises:
        ExportNotFound: the tenant has no such export.
        ExportNotReady: the export has no file, or not yet.
        ExportExpired: the time of the file is over.
    """
    query = exports_of(tenant_id).where(Export.id == export_id)
    found = (
        await session.execute(
            query.join(Job, Job.id == Export.job_id).add_columns(
                Job.status, (Export.expires_at <= func.now()).label("is_expired")
            )
        )
    ).one_or_none()
    if found is None:
        raise ExportNotFound(export_id)
    export, status, is_expired = found
    if status is not JobStatus.COMPLETED or export.object_key is None:
        raise ExportNotReady(export_id, status=status)
    if is_expired:
        raise ExportExpired(export_id)
    return StoredFile(
        key=ObjectKey(export.object_key),
        filename=view.filename_of(export),
        format=export.format,
    )


async def show_all(session: AsyncSession, exports: Sequence[Export]) -> list[ExportView]:
    """Return exports with the state of their jobs, which is read in one query."""
    rows = await session.execute(
        select(Job, Step)
        .outerjoin(Step, (Step.job_id == Job.id) & (Step.name == StepName.EXPORT))
        .where(Job.id.in_([export.job_id for export in exports]))
    )
    jobs = {job.id: (job, step) for job, step in rows}
    # A job may be deleted, with its export, between the two statements.
    return [view.show(each, *jobs[each.job_id]) for each in exports if each.job_id in jobs]


def deleted_at(now: datetime) -> dict[str, datetime]:
    """Return the columns of an export that the client deletes; a sweep deletes its file."""
    return {"deleted_at": now, "expires_at": now}
