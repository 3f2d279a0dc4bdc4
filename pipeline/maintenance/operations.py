"""What the sweeps read and change in the database, one short transaction per call."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from pipeline.maintenance.ownership import Transfer
from schemas.errors import ErrorCode
from schemas.events.uploads import UploadFailed
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import ACTIVE_JOBS, JobStage, StagingKind, UploadStatus
from schemas.tables.jobs import Job
from schemas.tables.outbox import emit
from schemas.tables.uploads import Chunk, Upload

SOURCE = "/waybill/pipeline/sweep"


@dataclass(frozen=True, kw_only=True)
class Expired:
    """An upload whose time ran out; its bytes are still there."""

    tenant_id: TenantId
    upload_id: UploadId
    staging: StagingKind


def expire(session: Session, *, at_most: int, now: datetime) -> Sequence[Expired]:
    """End uploads nobody finalized in time, and tell of each; the longest overdue come first.

    One that is being finalized or sent to at this moment is left for the next sweep.
    """
    overdue = session.execute(
        select(Upload.id, Upload.tenant_id, Upload.filename, Upload.staging, Upload.expires_at)
        .where(Upload.status == UploadStatus.OPEN, Upload.expires_at < func.now())
        .order_by(Upload.expires_at)
        .limit(at_most)
        .with_for_update(skip_locked=True)
    ).all()
    ids = [upload.id for upload in overdue]
    # First, because the change of status locks the sums of its tenants, and there may be many.
    session.execute(delete(Chunk).where(Chunk.upload_id.in_(ids)))
    session.execute(update(Upload).where(Upload.id.in_(ids)).values(status=UploadStatus.EXPIRED))
    for upload in overdue:
        emit(
            session,
            UploadFailed(
                upload_id=upload.id,
                filename=upload.filename,
                code=ErrorCode.UPLOAD_EXPIRED,
                detail=f"nobody finalized it before {upload.expires_at.isoformat()}",
            ),
            tenant_id=upload.tenant_id,
            source=SOURCE,
            now=now,
        )
    return [
        Expired(
            tenant_id=upload.tenant_id,
            upload_id=upload.id,
            staging=upload.staging,
        )
        for upload in overdue
    ]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An upload that has no object and never will."""

    tenant_id: TenantId
    upload_id: UploadId


def ended_without_object(session: Session, *, after: datetime, before: datetime) -> Sequence[Ended]:
    """Return the uploads that failed, or were cancelled, once they had a job, in this time."""
    found = session.execute(
        select(Upload.tenant_id, Upload.id)
        .join(Job, Job.upload_id == Upload.id)
        .where(
            Upload.status.in_((UploadStatus.FAILED, UploadStatus.CANCELLED)),
            Job.finished_at > after,
            Job.finished_at <= before,
        )
    )
    return [Ended(tenant_id=upload.tenant_id, upload_id=upload.id) for upload in found]


def statuses(session: Session, upload_ids: Collection[UploadId]) -> Mapping[UploadId, UploadStatus]:
    """Return the status of each of these uploads; one we do not know is left out."""
    found = session.execute(select(Upload.id, Upload.status).where(Upload.id.in_(upload_ids)))
    return {upload.id: upload.status for upload in found}


def transfers(session: Session, upload_ids: Collection[UploadId]) -> Mapping[UploadId, Transfer]:
    """Return what the jobs of these uploads say; an upload without a job is left out."""
    found = session.execute(
        select(
            Job.upload_id,
            Job.status,
            Job.stage,
            Job.multipart_id,
            func.coalesce(Job.lease_until >= func.now(), False).label("lease_is_live"),
        ).where(Job.upload_id.in_(upload_ids))
    )
    return {
        job.upload_id: Transfer(
            is_active=job.status in ACTIVE_JOBS and job.stage == JobStage.TRANSFER,
            multipart_id=job.multipart_id,
            lease_is_live=job.lease_is_live,
        )
        for job in found
    }
