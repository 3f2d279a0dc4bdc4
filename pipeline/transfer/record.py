"""What a transfer changes in the database, one short transaction per step.

Between the steps the bytes travel and no transaction is open. Every step is
conditional: on the status it expects, and on the lease of the caller.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from pipeline.messaging import inbox
from pipeline.transfer import lease
from pipeline.transfer.errors import LeaseLost
from pipeline.transfer.lease import ClaimedTransfer, LeaseHeld, Settled
from schemas.errors import DomainError
from schemas.events.uploads import StoredEvent, UploadFailed, UploadFinalized
from schemas.ids import DocumentId, EventId, TenantId, UploadId
from schemas.lifecycle import (
    ACTIVE_JOBS,
    DocumentStatus,
    JobStage,
    JobStatus,
    StagingKind,
    UploadStatus,
)
from schemas.policy import quotas as quota_policy
from schemas.policy.quotas import Quotas, Usage
from schemas.tables.documents import Document
from schemas.tables.jobs import Job
from schemas.tables.outbox import emit
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload

CONSUMER = "transfer"
SOURCE = "/waybill/pipeline/transfer"


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """A cancelled upload that nobody is working on."""

    tenant_id: TenantId
    upload_id: UploadId
    staging: StagingKind
    multipart_id: str | None


@dataclass(frozen=True, kw_only=True)
class Left:
    """What an upload that ended may have left behind."""

    staging: StagingKind
    multipart_id: str | None


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """The object as the store confirmed it."""

    size: int
    sha256: str
    etag: str
    content_type: str
    will_be_read: bool


def admit(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    size_bytes: int,
    sniffed_type: str | None,
    content_type: str | None,
    defaults: Quotas,
) -> ClaimedTransfer:
    """Write down how large an object named by reference is, within what its tenant may have.

    Returns:
        The claim with the size. What was done of an object of another size is forgotten.

    Raises:
        FileTooLarge, TypeNotAllowed, QuotaExceeded: not within the tenant's quotas;
            nothing was written.
        TransferCancelled: the client cancelled meanwhile.
        LeaseLost: the lease ran out and another worker took over.
    """
    tenant = session.get_one(Tenant, claimed.tenant_id)
    quotas = defaults.replaced_by(
        file_size=tenant.quota_file_size,
        total_bytes=tenant.quota_bytes,
        open_uploads=tenant.quota_open_uploads,
        types=tenant.allowed_types,
    )
    quota_policy.check_size(size_bytes, quotas=quotas)
    quota_policy.check_content(sniffed_type, declared=content_type, quotas=quotas)
    if size_bytes == claimed.size:
        return claimed
    resized = session.execute(
        update(Job)
        .where(
            Job.id == claimed.job_id,
            Job.lease_owner == claimed.owner,
            Job.status == JobStatus.PROCESSING,
        )
        .values(
            bytes_total=size_bytes,
            bytes_done=0,
            bytes_at_claim=0,
            digested_bytes=0,
            digest_state=None,
        )
        .returning(Job.id),
    )
    if resized.first() is None:
        raise lease.why_lost(session, job_id=claimed.job_id)
    session.execute(
        update(Upload)
        .where(Upload.id == claimed.upload_id)
        .values(size=size_bytes, sniffed_type=sniffed_type)
    )
    # The row is locked since the line above: two transfers at once cannot both pass.
    usage = session.get_one(TenantUsage, claimed.tenant_id, populate_existing=True)
    quota_policy.check_total(
        Usage(total_bytes=usage.bytes, open_uploads=usage.open_uploads), quotas=quotas
    )
    return replace(claimed, size=size_bytes, bytes_done=0, checkpoint=None)


def left_of(session: Session, upload_id: UploadId) -> Left:
    """Return where to look for what is left of an upload that has a job."""
    found = session.execute(
        select(Upload.staging, Job.multipart_id)
        .join(Job, Job.upload_id == Upload.id)
        .where(Upload.id == upload_id)
    ).one()
    return Left(staging=found.staging, multipart_id=found.multipart_id)


def cancelled(session: Session, upload_id: UploadId) -> Cancelled | None:
    """Return what is known of a cancelled upload, or None if it is not cancelled.

    Raises:
        LeaseHeld: a worker is sending it, or was until a moment ago; it cleans up itself.
    """
    found = session.execute(
        select(
            Upload.tenant_id,
            Upload.status,
            Upload.staging,
            Job.multipart_id,
            Job.lease_owner,
            (Job.lease_until >= func.now()).label("is_held"),
        )
        .outerjoin(Job, Job.upload_id == Upload.id)
        .where(Upload.id == upload_id),
    ).one_or_none()
    if found is None or found.status != UploadStatus.CANCELLED:
        return None
    if found.is_held:
        raise LeaseHeld(f"held by {found.lease_owner}")
    return Cancelled(
        tenant_id=found.tenant_id,
        upload_id=upload_id,
        staging=found.staging,
        multipart_id=found.multipart_id,
    )


def record_stored(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    stored: StoredObject,
    event_id: EventId,
    now: datetime,
    traceparent: str | None,
) -> None:
    """Link the object, settle or hand on the job, and tell of it: all or nothing.

    Raises:
        TransferCancelled: the client cancelled after the object was complete.
        LeaseLost: another worker took over; it will find the object.
    """
    moved = session.execute(
        update(Job)
        .where(
            Job.id == claimed.job_id,
            Job.lease_owner == claimed.owner,
            Job.status == JobStatus.PROCESSING,
            Job.stage == JobStage.TRANSFER,
        )
        .values(
            status=JobStatus.PROCESSING if stored.will_be_read else JobStatus.COMPLETED,
            stage=JobStage.INGEST if stored.will_be_read else JobStage.DONE,
            bytes_done=stored.size,
            digested_bytes=stored.size,
            digest_state=None,
            multipart_id=None,
            lease_owner=None,
            lease_until=None,
            stored_at=now,
            finished_at=None if stored.will_be_read else now,
        )
        .returning(Job.id),
    )
    if moved.first() is None:
        raise lease.why_lost(session, job_id=claimed.job_id)
    if not inbox.is_first_delivery(session, consumer=CONSUMER, event_id=event_id):
        raise LeaseLost
    document_id = DocumentId(uuid4())
    session.execute(
        update(Upload)
        .where(Upload.id == claimed.upload_id, Upload.status == UploadStatus.FINALIZED)
        .values(status=UploadStatus.STORED),
    )
    session.add(
        Document(
            id=document_id,
            tenant_id=claimed.tenant_id,
            upload_id=claimed.upload_id,
            job_id=claimed.job_id,
            status=DocumentStatus.STORED,
            filename=claimed.filename,
            content_type=stored.content_type,
            size=stored.size,
            sha256=stored.sha256,
            object_key=claimed.object_key,
            etag=stored.etag,
        ),
    )
    result = {
        "document_id": str(document_id),
        "sha256": stored.sha256,
        "size": stored.size,
        "content_type": stored.content_type,
    }
    session.execute(update(Job).where(Job.id == claimed.job_id).values(result=result))
    event = StoredEvent(
        upload_id=claimed.upload_id,
        job_id=claimed.job_id,
        document_id=document_id,
        filename=claimed.filename,
        size=stored.size,
        sha256=stored.sha256,
        content_type=stored.content_type,
        object_key=claimed.object_key,
        will_be_read=stored.will_be_read,
    )
    emit(
        session,
        event,
        tenant_id=claimed.tenant_id,
        source=SOURCE,
        now=now,
        traceparent=traceparent,
    )


def record_failed(
    session: Session,
    finalized: UploadFinalized,
    *,
    tenant_id: TenantId,
    error: DomainError,
    now: datetime,
    traceparent: str | None,
) -> Settled:
    """Settle the job as failed, with its reason, and tell of it, unless it is settled already.

    Returns:
        How it is settled now.

    Raises:
        LeaseHeld: another worker has the upload, or had it until a moment ago.
    """
    failed = session.execute(
        update(Job)
        .where(
            Job.id == finalized.job_id,
            Job.status.in_(ACTIVE_JOBS),
            Job.stage == JobStage.TRANSFER,
            # Another delivery of the event may be sending the file with success.
            lease.is_free(),
        )
        .values(
            status=JobStatus.FAILED,
            error_code=error.code,
            error_detail=str(error),
            error_retryable=error.retryable,
            lease_owner=None,
            lease_until=None,
            finished_at=now,
        )
        .returning(Job.id),
    )
    if failed.first() is None:
        return lease.why_not(session, job_id=finalized.job_id, upload_id=finalized.upload_id)
    session.execute(
        update(Upload)
        .where(Upload.id == finalized.upload_id, Upload.status == UploadStatus.FINALIZED)
        .values(status=UploadStatus.FAILED),
    )
    event = UploadFailed(
        upload_id=finalized.upload_id,
        job_id=finalized.job_id,
        filename=finalized.filename,
        code=error.code,
        detail=str(error),
    )
    emit(session, event, tenant_id=tenant_id, source=SOURCE, now=now, traceparent=traceparent)
    return Settled.FAILED
