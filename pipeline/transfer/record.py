"""Records the results of a transfer, one short transaction per result.

No transaction is open while bytes travel. Every change is conditional on the status that it
expects and on the lease of the caller. The upload is changed before the step: the change may lock
the usage of the tenant, which comes before the steps in the order of locks.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import uuid4

import msgspec
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline.steps import following, lease
from pipeline.transfer.claim import ClaimedTransfer, UnknownUpload, encode_checkpoint
from pipeline.transfer.send import SentObject
from schemas.api.jobs import DocumentSummary
from schemas.errors import DomainError
from schemas.events.uploads import StoredEvent, UploadFailed, UploadFinalized
from schemas.ids import DocumentId, TenantId
from schemas.lifecycle import DocumentStatus, ScanState, StepStatus, UploadStatus
from schemas.policy.quotas import Quotas, Usage
from schemas.settings import StepSettings
from schemas.steps import FIRST_OF_READING, StepName
from schemas.tables.documents import Document
from schemas.tables.events import emit
from schemas.tables.jobs import Job
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload

SOURCE = "/waybill/pipeline/transfer"

_NOT_READ: Final = msgspec.to_builtins(
    DocumentSummary(missing=["The file is stored; files of its type are not read."])
)
"""The summary of a document that no step reads."""


def admit_reference(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    size_bytes: int,
    sniffed_type: str | None,
    content_type: str | None,
    defaults: Quotas,
    settings: StepSettings,
) -> ClaimedTransfer:
    """Check a referenced object against its tenant's quotas and record its size.

    Returns:
        The claimed transfer with the size. If the size has changed, progress is reset:
        the parts stored before are of another object.

    Raises:
        FileTooLarge, TypeNotAllowed, QuotaExceeded: a quota forbids the object; nothing is
            recorded.
        StepCancelled: the client cancelled meanwhile.
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
    lease.restart(
        session,
        claimed.step,
        lease=settings.step_lease,
        total=size_bytes,
        checkpoint=encode_checkpoint(claimed.multipart_id, None),
        forget_claim=True,
    )
    return replace(claimed, size=size_bytes, bytes_done=0, checkpoint=None)


def record_stored(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    sent: SentObject,
    will_be_read: bool,
    will_be_scanned: bool,
    settings: StepSettings,
    now: datetime,
    traceparent: str | None,
) -> None:
    """Create the document, complete the step, emit the event, and add the steps that follow.

    A file that is to be scanned is read by steps that the end of its scan adds.

    Raises:
        StepCancelled: the client cancelled after the object was complete.
        LeaseLost: another worker took over; that worker will find the object.
    """
    document_id = DocumentId(uuid4())
    scan_state = ScanState.PENDING if will_be_scanned else ScanState.OFF
    session.execute(
        update(Upload)
        .where(Upload.id == claimed.upload_id, Upload.status == UploadStatus.FINALIZED)
        .values(status=UploadStatus.STORED),
    )
    lease.complete(
        session,
        claimed.step,
        done=sent.size_bytes,
        total=sent.size_bytes,
        settings=settings,
    )
    session.execute(
        update(Job)
        .where(Job.id == claimed.job_id)
        .values(
            result={
                "document_id": str(document_id),
                "sha256": sent.sha256,
                "size": sent.size_bytes,
                "content_type": sent.content_type,
            }
            | ({} if will_be_read else {"summary": _NOT_READ})
        )
    )
    session.add(
        Document(
            id=document_id,
            tenant_id=claimed.tenant_id,
            upload_id=claimed.upload_id,
            job_id=claimed.job_id,
            status=DocumentStatus.READING if will_be_read else DocumentStatus.STORED,
            filename=claimed.filename,
            content_type=sent.content_type,
            size=sent.size_bytes,
            sha256=sent.sha256,
            object_key=claimed.object_key,
            etag=sent.etag,
            scan_state=scan_state,
        )
    )
    event_id = emit(
        session,
        StoredEvent(
            upload_id=claimed.upload_id,
            job_id=claimed.job_id,
            document_id=document_id,
            filename=claimed.filename,
            size=sent.size_bytes,
            sha256=sent.sha256,
            content_type=sent.content_type,
            object_key=claimed.object_key,
            will_be_read=will_be_read,
            malware_scan=scan_state,
        ),
        tenant_id=claimed.tenant_id,
        source=SOURCE,
        now=now,
        traceparent=traceparent,
    )
    if will_be_scanned:
        following.add(session, claimed.step, (StepName.SCAN,), event_id=event_id, settings=settings)
    elif will_be_read:
        following.add(session, claimed.step, FIRST_OF_READING, event_id=event_id, settings=settings)


def record_failed(
    session: Session,
    finalized: UploadFinalized,
    *,
    tenant_id: TenantId,
    error: DomainError,
    settings: StepSettings,
    now: datetime,
    traceparent: str | None,
) -> StepStatus:
    """End the transfer as failed and emit the event, unless the transfer has ended already.

    Returns:
        How the transfer ended.

    Raises:
        LeaseHeld: another worker has the lease; the transaction must roll back.
        UnknownStep: there is no such job.
        UnknownUpload: the job has another upload.
    """
    upload_id = session.scalar(select(Job.upload_id).where(Job.id == finalized.job_id))
    if upload_id not in {None, finalized.upload_id}:
        raise UnknownUpload(finalized.upload_id)
    with session.begin_nested() as attempt:
        session.execute(
            update(Upload)
            .where(Upload.id == finalized.upload_id, Upload.status == UploadStatus.FINALIZED)
            .values(status=UploadStatus.FAILED),
        )
        ended_before = lease.fail(
            session,
            job_id=finalized.job_id,
            name=StepName.TRANSFER,
            error=error,
            settings=settings,
        )
        if ended_before is not None:
            attempt.rollback()
            return ended_before
    event = UploadFailed(
        upload_id=finalized.upload_id,
        job_id=finalized.job_id,
        filename=finalized.filename,
        code=error.code,
        detail=str(error),
    )
    emit(session, event, tenant_id=tenant_id, source=SOURCE, now=now, traceparent=traceparent)
    return StepStatus.FAILED
