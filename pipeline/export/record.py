"""Reads and changes the rows of exports. A transaction locks the export before its step."""

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline.context import database_time
from pipeline.export.errors import ExportGone
from pipeline.export.spool import Spooled
from pipeline.export.statement import Query
from pipeline.settings import Settings
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from schemas.api.exports import ExportFilter
from schemas.errors import DomainError
from schemas.events.exports import ExportCompleted, ExportFailed, ExportRequested
from schemas.ids import ExportId, TenantId
from schemas.lifecycle import StepStatus
from schemas.object_keys import ObjectKey
from schemas.steps import StepName
from schemas.tables.base import table_of
from schemas.tables.events import emit
from schemas.tables.exports import Export
from schemas.tables.jobs import Job

SOURCE = "/waybill/pipeline/export"

_JOBS = table_of(Job)


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """The file of an export, in the bucket."""

    key: ObjectKey
    spooled: Spooled


def query_of(session: Session, export_id: ExportId) -> Query:
    """Return what an export has.

    Raises:
        ExportGone: the export was deleted.
    """
    export = session.get(Export, export_id)
    if export is None or export.deleted_at is not None:
        raise ExportGone(export_id)
    return Query(
        export_id=export.id,
        tenant_id=export.tenant_id,
        kind=export.kind,
        format=export.format,
        filter=msgspec.convert(export.filter, ExportFilter),
        columns=tuple(export.columns),
        bom=export.bom,
        raw=export.raw,
    )


def complete(
    session: Session,
    claimed: ClaimedStep,
    *,
    export_id: ExportId,
    file: StoredFile,
    settings: Settings,
    traceparent: str | None,
) -> None:
    """Record the file, complete the step and emit `export.completed`.

    Raises:
        ExportGone: the export was deleted.
        StepCancelled, LeaseLost: see `lease.renew`; the transaction must roll back.
    """
    now = database_time(session)
    expires_at = now + settings.export_ttl
    spooled = file.spooled
    export = session.execute(
        update(Export)
        .where(Export.id == export_id, Export.deleted_at.is_(None))
        .values(
            rows=spooled.rows,
            size=spooled.size_bytes,
            sha256=spooled.sha256,
            object_key=file.key,
            expires_at=expires_at,
        )
        .returning(Export.kind, Export.format)
    ).one_or_none()
    if export is None:
        raise ExportGone(export_id)
    lease.complete(session, claimed, done=spooled.rows, total=spooled.rows, settings=settings)
    session.execute(
        update(_JOBS)
        .where(_JOBS.c.id == claimed.job_id)
        .values(
            result={
                "export_id": str(export_id),
                "rows": spooled.rows,
                "bytes": spooled.size_bytes,
                "sha256": spooled.sha256,
            }
        )
    )
    emit(
        session,
        ExportCompleted(
            export_id=export_id,
            job_id=claimed.job_id,
            kind=export.kind,
            format=export.format,
            rows=spooled.rows,
            size=spooled.size_bytes,
            sha256=spooled.sha256,
            expires_at=expires_at,
        ),
        tenant_id=claimed.tenant_id,
        source=SOURCE,
        now=now,
        traceparent=traceparent,
    )


def fail(
    session: Session,
    requested: ExportRequested,
    *,
    tenant_id: TenantId,
    error: DomainError,
    settings: Settings,
    now: datetime,
    traceparent: str | None,
) -> StepStatus:
    """Record the failure and emit `export.failed`; return the status of the step.

    Raises:
        LeaseHeld: another worker makes the export.
        UnknownStep: there is no such job.
    """
    export = session.execute(
        update(Export)
        .where(Export.id == requested.export_id)
        .values(expires_at=now + settings.export_ttl)
        .returning(Export.kind, Export.format, Export.deleted_at)
    ).one_or_none()
    ended_before = lease.fail(
        session,
        job_id=requested.job_id,
        name=StepName.EXPORT,
        error=error,
        settings=settings,
    )
    if ended_before is not None:
        return ended_before
    if export is not None and export.deleted_at is None:
        emit(
            session,
            ExportFailed(
                export_id=requested.export_id,
                job_id=requested.job_id,
                kind=export.kind,
                format=export.format,
                code=error.code,
                detail=str(error),
            ),
            tenant_id=tenant_id,
            source=SOURCE,
            now=now,
            traceparent=traceparent,
        )
    return StepStatus.FAILED


def key_of(session: Session, export_id: ExportId) -> ObjectKey | None:
    """Return the key of the export's file; None if it has no file, or does not exist."""
    key = session.scalar(select(Export.object_key).where(Export.id == export_id))
    return None if key is None else ObjectKey(key)
