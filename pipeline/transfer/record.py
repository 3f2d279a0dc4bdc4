"""Records the results of a transfer, one short transaction per step.

No transaction is open while bytes travel between the steps. Every step is conditional on
the status that it expects and on the lease of the caller.
"""

from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from sqlalchemy import update
from sqlalchemy.orm import Session

from pipeline.messaging import inbox
from pipeline.transfer import lease
from pipeline.transfer.errors import LeaseLost
from pipeline.transfer.lease import ClaimedTransfer, Settled
from pipeline.transfer.send import SentObject
from schemas.errors import DomainError
from schemas.events.uploads import StoredEvent, UploadFailed, UploadFinalized
from schemas.ids import DocumentId, EventId, TenantId
from schemas.lifecycle import ACTIVE_JOBS, DocumentStatus, JobStage, JobStatus, UploadStatus
from schemas.policy.quotas import Quotas, Usage
from schemas.tables.documents import Document
from schemas.tables.jobs import Job
from schemas.tables.outbox import emit
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload

CONSUMER = "transfer"
SOURCE = "/waybill/pipeline/transfer"


def admit_reference(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    size_bytes: int,
    sniffed_type: str | None,
    content_type: str | None,
    defaults: Quotas,
) -> ClaimedTransfer:
    """Check a referenced object against its tenant's quotas and record its size.

    Returns:
        The claimed transfer with the size. If the size has changed, progress is reset:
        the parts stored before are of another object.

    Raises:
        FileTooLarge, TypeNotAllowed, QuotaExceeded: a quota forbids the object; nothing is
            recorded.
        TransferCancelled: the client cancelled meanwhile.
        LeaseLost: the lease expired and another worker took over.
    """
    tenant = session.get_one(Tenant, claimed.tenant_id)
    quotas = defaults.replaced_by(
        file_size=tenant.quota_file_size,
        total_bytes=tenant.quota_bytes,
        open_uploads=tenant.quota_open_uploads,
        staged_bytes=tenant.quota_staged_bytes,
        types=tenant.allowed_types,
    )
    quotas.check_size(size_bytes)
    quotas.check_content(sniffed_type, declared=content_type)
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
    # The update above locks the usage row: two transfers at once cannot both pass the check.
    usage = session.get_one(TenantUsage, claimed.tenant_id, populate_existing=True)
    quotas.check_total(
        Usage(
            total_bytes=usage.bytes,
            open_uploads=usage.open_uploads,
            staged_bytes=usage.staged_bytes,
        )
    )
    return replace(claimed, size=size_bytes, bytes_done=0, checkpoint=None)


def record_stored(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    sent: SentObject,
    will_be_read: bool,
    event_id: EventId,
    now: datetime,
    traceparent: str | None,
) -> None:
    """Create the document, advance or complete the job, and emit the event.

    Raises:
        TransferCancelled: the client cancelled after the object was complete.
        LeaseLost: another worker took over; that worker will find the object.
    """
    document = Document(
        id=DocumentId(uuid4()),
        tenant_id=claimed.tenant_id,
        upload_id=claimed.upload_id,
        job_id=claimed.job_id,
        status=DocumentStatus.STORED,
        filename=claimed.filename,
        content_type=sent.content_type,
        size=sent.size_bytes,
        sha256=sent.sha256,
        object_key=claimed.object_key,
        etag=sent.etag,
    )
    _advance_job(session, claimed, document=document, will_be_read=will_be_read, now=now)
    if not inbox.is_first_delivery(session, consumer=CONSUMER, event_id=event_id):
        raise LeaseLost
    session.execute(
        update(Upload)
        .where(Upload.id == claimed.upload_id, Upload.status == UploadStatus.FINALIZED)
        .values(status=UploadStatus.STORED),
    )
    session.add(document)
    event = StoredEvent(
        upload_id=claimed.upload_id,
        job_id=claimed.job_id,
        document_id=document.id,
        filename=claimed.filename,
        size=sent.size_bytes,
        sha256=sent.sha256,
        content_type=sent.content_type,
        object_key=claimed.object_key,
        will_be_read=will_be_read,
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
    """Settle the job as failed and emit the event, unless the transfer has ended already.

    Returns:
        How the transfer ended.

    Raises:
        LeaseHeld: another worker has the lease.
    """
    failed = session.execute(
        update(Job)
        .where(
            Job.id == finalized.job_id,
            Job.status.in_(ACTIVE_JOBS),
            Job.stage == JobStage.TRANSFER,
            # Another delivery of the event may be sending the file successfully.
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
        return lease.why_not_claimed(
            session, job_id=finalized.job_id, upload_id=finalized.upload_id
        )
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


def _advance_job(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    document: Document,
    will_be_read: bool,
    now: datetime,
) -> None:
    advanced = session.execute(
        update(Job)
        .where(
            Job.id == claimed.job_id,
            Job.lease_owner == claimed.owner,
            Job.status == JobStatus.PROCESSING,
            Job.stage == JobStage.TRANSFER,
        )
        .values(
            status=JobStatus.PROCESSING if will_be_read else JobStatus.COMPLETED,
            stage=JobStage.INGEST if will_be_read else JobStage.DONE,
            bytes_done=document.size,
            digested_bytes=document.size,
            digest_state=None,
            multipart_id=None,
            lease_owner=None,
            lease_until=None,
            stored_at=now,
            finished_at=None if will_be_read else now,
            result={
                "document_id": str(document.id),
                "sha256": document.sha256,
                "size": document.size,
                "content_type": document.content_type,
            },
        )
        .returning(Job.id),
    )
    if advanced.first() is None:
        raise lease.why_lost(session, job_id=claimed.job_id)
