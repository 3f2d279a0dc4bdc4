"""What a transfer changes in the database, one short transaction per step.

Between the steps the bytes travel and no transaction is open. Every step is
conditional: on the status it expects, and on the lease of the caller, so that
a worker that was thought dead cannot write over the one that took over.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from uuid import uuid4

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from pipeline import inbox
from pipeline.event_task import NotNow
from pipeline.transfer.checksums import Chunk
from pipeline.transfer.interruptions import LeaseLost, TransferCancelled
from schemas import admission, object_keys
from schemas.admission import Quotas, Usage
from schemas.errors import DomainError, ErrorCode
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent, UploadFailed, UploadFinalized
from schemas.ids import DocumentId, EventId, JobId, TenantId, UploadId
from schemas.lifecycle import (
    ACTIVE_JOBS,
    DocumentStatus,
    JobStage,
    JobStatus,
    StagingKind,
    UploadStatus,
)
from schemas.object_keys import ObjectKey
from schemas.tables import uploads as rows
from schemas.tables.documents import Document
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload

CONSUMER = "transfer"
SOURCE = "/waybill/pipeline/transfer"


class LeaseHeld(NotNow):
    """Another worker is sending this upload, or was until a moment ago."""


class UnknownUpload(DomainError):
    """The event names an upload or job this database does not have."""

    code = ErrorCode.UPLOAD_NOT_FOUND

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"there is no upload {upload_id} with such a job")


class Settled(Enum):
    """Why there is nothing to send."""

    STORED = auto()
    CANCELLED = auto()
    FAILED = auto()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An upload this worker alone may send, until its lease runs out."""

    tenant_id: TenantId
    upload_id: UploadId
    job_id: JobId
    owner: str
    staging: StagingKind
    source_key: ObjectKey | None
    """The object to be copied, where `staging` is a reference."""
    filename: str
    declared_content_type: str | None
    declared_sha256: str | None
    size: int
    chunk_size: int
    chunks: tuple[Chunk, ...]
    object_key: ObjectKey
    multipart_id: str | None
    bytes_done: int
    """What earlier deliveries stored."""


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """A cancelled upload that nobody is working on."""

    tenant_id: TenantId
    upload_id: UploadId
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


def claim(
    session: Session, *, job_id: JobId, upload_id: UploadId, owner: str, lease: timedelta
) -> Claim | Settled:
    """Take the upload, or say why there is nothing to take.

    Raises:
        LeaseHeld: another worker has it; it either finishes or its lease runs out.
        UnknownUpload: there is no such upload or job.
    """
    now = func.now()
    claimed = session.execute(
        update(Job)
        .where(
            Job.id == job_id,
            Job.upload_id == upload_id,
            Job.status.in_(ACTIVE_JOBS),
            Job.stage == JobStage.TRANSFER,
            _is_free(),
        )
        .values(
            status=JobStatus.PROCESSING,
            lease_owner=owner,
            lease_until=now + lease,
            bytes_at_claim=Job.bytes_done,
            started_at=func.coalesce(Job.started_at, now),
        )
        .returning(Job.multipart_id, Job.bytes_done),
    ).one_or_none()
    if claimed is None:
        return _why_not(session, job_id=job_id, upload_id=upload_id)
    upload = session.get_one(Upload, upload_id)
    chunks = session.execute(
        select(rows.Chunk.index, rows.Chunk.size, rows.Chunk.sha256)
        .where(rows.Chunk.upload_id == upload_id)
        .order_by(rows.Chunk.index),
    )
    return Claim(
        tenant_id=upload.tenant_id,
        upload_id=upload_id,
        job_id=job_id,
        owner=owner,
        staging=StagingKind(upload.staging),
        source_key=ObjectKey(upload.source_key) if upload.source_key is not None else None,
        filename=upload.filename,
        declared_content_type=upload.content_type,
        declared_sha256=upload.sha256,
        size=upload.size,
        chunk_size=upload.chunk_size,
        chunks=tuple(
            Chunk(index=index, size_bytes=size, sha256=sha256) for index, size, sha256 in chunks
        ),
        object_key=object_keys.original(upload.tenant_id, upload_id),
        multipart_id=claimed.multipart_id,
        bytes_done=claimed.bytes_done,
    )


def got_further(session: Session, *, job_id: JobId) -> bool:
    """Whether the worker that last had the transfer stored more than there was when it took it."""
    further = session.scalar(
        select(Job.bytes_done > Job.bytes_at_claim).where(
            Job.id == job_id,
            # Once stored there is nothing left to get further with.
            Job.stage == JobStage.TRANSFER,
        )
    )
    return bool(further)


def _is_free() -> ColumnElement[bool]:
    return or_(Job.lease_until.is_(None), Job.lease_until < func.now())


def _why_not(session: Session, *, job_id: JobId, upload_id: UploadId) -> Settled:
    found = session.execute(
        select(Job.status, Job.stage, Job.lease_owner).where(
            Job.id == job_id, Job.upload_id == upload_id
        ),
    ).one_or_none()
    if found is None:
        raise UnknownUpload(upload_id)
    if found.status == JobStatus.CANCELLED:
        return Settled.CANCELLED
    if found.stage != JobStage.TRANSFER:
        return Settled.STORED
    if found.status == JobStatus.FAILED:
        return Settled.FAILED
    raise LeaseHeld(f"held by {found.lease_owner}")


def renew(
    session: Session,
    *,
    job_id: JobId,
    owner: str,
    lease: timedelta,
    bytes_done: int,
    multipart_id: str | None,
) -> None:
    """Keep the lease, and show how far the transfer got.

    Raises:
        TransferCancelled: the client cancelled meanwhile.
        LeaseLost: the lease ran out and another worker took over.
    """
    renewed = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.lease_owner == owner, Job.status == JobStatus.PROCESSING)
        .values(
            lease_until=func.now() + lease,
            bytes_done=func.greatest(Job.bytes_done, bytes_done),
            multipart_id=multipart_id,
        )
        .returning(Job.id),
    )
    if renewed.first() is None:
        raise _why_lost(session, job_id=job_id)


def admit(
    session: Session,
    claimed: Claim,
    *,
    size_bytes: int,
    sniffed_type: str | None,
    content_type: str | None,
    defaults: Quotas,
) -> Claim:
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
    admission.check_size(size_bytes, quotas=quotas)
    admission.check_content(sniffed_type, declared=content_type, quotas=quotas)
    if size_bytes == claimed.size:
        return claimed
    resized = session.execute(
        update(Job)
        .where(
            Job.id == claimed.job_id,
            Job.lease_owner == claimed.owner,
            Job.status == JobStatus.PROCESSING,
        )
        .values(bytes_total=size_bytes, bytes_done=0, bytes_at_claim=0)
        .returning(Job.id),
    )
    if resized.first() is None:
        raise _why_lost(session, job_id=claimed.job_id)
    session.execute(
        update(Upload)
        .where(Upload.id == claimed.upload_id)
        .values(size=size_bytes, sniffed_type=sniffed_type)
    )
    # The row is locked since the line above: two transfers at once cannot both pass.
    usage = session.get_one(TenantUsage, claimed.tenant_id, populate_existing=True)
    admission.check_total(
        Usage(total_bytes=usage.bytes, open_uploads=usage.open_uploads), quotas=quotas
    )
    return replace(claimed, size=size_bytes, bytes_done=0)


def _why_lost(session: Session, *, job_id: JobId) -> TransferCancelled | LeaseLost:
    status = session.scalar(select(Job.status).where(Job.id == job_id))
    return TransferCancelled() if status == JobStatus.CANCELLED else LeaseLost()


def staging_of(session: Session, upload_id: UploadId) -> StagingKind | None:
    """Return where an upload's bytes wait, or None if there is no such upload."""
    kind = session.scalar(select(Upload.staging).where(Upload.id == upload_id))
    return None if kind is None else StagingKind(kind)


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
        staging=StagingKind(found.staging),
        multipart_id=found.multipart_id,
    )


def release(session: Session, *, job_id: JobId, owner: str) -> None:
    """Let the next delivery have the upload at once, where this one ends without result."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.lease_owner == owner)
        .values(lease_owner=None, lease_until=None),
    )


def record_stored(
    session: Session,
    claimed: Claim,
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
            multipart_id=None,
            lease_owner=None,
            lease_until=None,
            stored_at=now,
            finished_at=None if stored.will_be_read else now,
        )
        .returning(Job.id),
    )
    if moved.first() is None:
        raise _why_lost(session, job_id=claimed.job_id)
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
    _tell(session, event, tenant_id=claimed.tenant_id, now=now, traceparent=traceparent)


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
            _is_free(),
        )
        .values(
            status=JobStatus.FAILED,
            error_code=error.code,
            error_detail=str(error),
            error_retryable=error.retryable,
            multipart_id=None,
            lease_owner=None,
            lease_until=None,
            finished_at=now,
        )
        .returning(Job.id),
    )
    if failed.first() is None:
        return _why_not(session, job_id=finalized.job_id, upload_id=finalized.upload_id)
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
    _tell(session, event, tenant_id=tenant_id, now=now, traceparent=traceparent)
    return Settled.FAILED


def _tell(
    session: Session,
    event: StoredEvent | UploadFailed,
    *,
    tenant_id: TenantId,
    now: datetime,
    traceparent: str | None,
) -> None:
    session.add(
        OutboxMessage.carrying(
            Envelope(
                id=EventId(uuid4()),
                source=SOURCE,
                subject=str(event.upload_id),
                time=now,
                tenantid=tenant_id,
                data=event,
            ),
            traceparent=traceparent,
        ),
    )
