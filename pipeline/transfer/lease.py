"""The lease on a transfer: claimed by one worker, renewed by its heartbeat, released or lost.

Every change is conditional on the caller's lease. A worker whose lease expired cannot
overwrite what its successor writes.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from pipeline.messaging.event_task import RetryLater
from pipeline.transfer.checks import Chunk
from pipeline.transfer.errors import LeaseLost, TransferCancelled
from pipeline.transfer.resume import Checkpoint
from schemas import object_keys
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import ACTIVE_JOBS, JobStage, JobStatus, StagingKind
from schemas.object_keys import ObjectKey
from schemas.tables import uploads as rows
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload


class LeaseHeld(RetryLater):
    """Another worker holds the lease, or its lease has not expired yet."""


class UnknownUpload(DomainError):
    """The event names an upload or a job that the database does not have."""

    code = ErrorCode.UPLOAD_NOT_FOUND

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"there is no upload {upload_id} with such a job")


class Settled(Enum):
    """The final result of a transfer."""

    STORED = auto()
    CANCELLED = auto()
    FAILED = auto()


@dataclass(frozen=True, kw_only=True)
class ClaimedTransfer:
    """An upload that only this worker may send until its lease expires."""

    tenant_id: TenantId
    upload_id: UploadId
    job_id: JobId
    owner: str
    staging: StagingKind
    source_key: ObjectKey | None
    """The object to copy, if `staging` is a reference."""
    filename: str
    declared_content_type: str | None
    declared_sha256: str | None
    size: int
    chunk_size: int
    chunks: tuple[Chunk, ...]
    object_key: ObjectKey
    multipart_id: str | None
    checkpoint: Checkpoint | None
    """Recorded by an earlier delivery; belongs to `multipart_id`."""
    bytes_done: int
    """Bytes that earlier deliveries stored."""


def claim(
    session: Session, *, job_id: JobId, upload_id: UploadId, owner: str, lease: timedelta
) -> ClaimedTransfer | Settled:
    """Take the lease, or return the final result of a transfer that has ended.

    Raises:
        LeaseHeld: another worker has the lease.
        UnknownUpload: there is no such upload or job.
    """
    now = func.now()
    job = session.execute(
        update(Job)
        .where(
            Job.id == job_id,
            Job.upload_id == upload_id,
            Job.status.in_(ACTIVE_JOBS),
            Job.stage == JobStage.TRANSFER,
            is_free(),
        )
        .values(
            status=JobStatus.PROCESSING,
            lease_owner=owner,
            lease_until=now + lease,
            bytes_at_claim=Job.bytes_done,
            started_at=func.coalesce(Job.started_at, now),
        )
        .returning(Job.multipart_id, Job.bytes_done, Job.digested_bytes, Job.digest_state),
    ).one_or_none()
    if job is None:
        return why_not_claimed(session, job_id=job_id, upload_id=upload_id)
    upload = session.get_one(Upload, upload_id)
    has_checkpoint = job.digest_state is not None
    return ClaimedTransfer(
        tenant_id=upload.tenant_id,
        upload_id=upload_id,
        job_id=job_id,
        owner=owner,
        staging=upload.staging,
        source_key=ObjectKey(upload.source_key) if upload.source_key is not None else None,
        filename=upload.filename,
        declared_content_type=upload.content_type,
        declared_sha256=upload.sha256,
        size=upload.size,
        chunk_size=upload.chunk_size,
        chunks=_chunks(session, upload_id),
        object_key=object_keys.original(upload.tenant_id, upload_id),
        multipart_id=job.multipart_id,
        checkpoint=Checkpoint(job.digested_bytes, job.digest_state) if has_checkpoint else None,
        bytes_done=job.bytes_done,
    )


def renew(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    lease: timedelta,
    bytes_done: int,
    multipart_id: str | None,
    checkpoint: Checkpoint | None,
) -> None:
    """Renew the lease and record the progress of the transfer.

    Raises:
        TransferCancelled: the client cancelled meanwhile.
        LeaseLost: the lease expired and another worker took over.
    """
    _renew(
        session,
        claimed,
        lease=lease,
        bytes_done=func.greatest(Job.bytes_done, bytes_done),
        multipart_id=multipart_id,
        digested_bytes=0 if checkpoint is None else checkpoint.digested_bytes,
        digest_state=None if checkpoint is None else checkpoint.state,
    )


def begin_anew(
    session: Session, claimed: ClaimedTransfer, *, lease: timedelta, multipart_id: str
) -> None:
    """Renew the lease and reset progress to zero for a new multipart upload.

    Without the reset, `got_further` would compare against parts that no longer exist, and
    no slice of the new attempt would end in time. `bytes_at_claim` stays: crashes count
    until more bytes are stored than were lost, so a transfer that loses every multipart
    upload ends.

    Raises:
        TransferCancelled: the client cancelled meanwhile.
        LeaseLost: the lease expired and another worker took over.
    """
    _renew(
        session,
        claimed,
        lease=lease,
        bytes_done=0,
        multipart_id=multipart_id,
        digested_bytes=0,
        digest_state=None,
    )


def release(session: Session, claimed: ClaimedTransfer) -> None:
    """End the lease so that the next delivery can claim the transfer at once."""
    session.execute(
        update(Job)
        .where(Job.id == claimed.job_id, Job.lease_owner == claimed.owner)
        .values(lease_owner=None, lease_until=None),
    )


def got_further(session: Session, *, job_id: JobId) -> bool:
    """Return whether the last worker stored more bytes than the job had at that worker's claim."""
    further = session.scalar(
        select(Job.bytes_done > Job.bytes_at_claim).where(
            Job.id == job_id,
            # A transfer that is already stored makes no more progress.
            Job.stage == JobStage.TRANSFER,
        )
    )
    return bool(further)


def is_free() -> ColumnElement[bool]:
    """Return the condition that no worker holds the lease of a job."""
    return or_(Job.lease_until.is_(None), Job.lease_until < func.now())


def why_not_claimed(session: Session, *, job_id: JobId, upload_id: UploadId) -> Settled:
    """Return the final result of a transfer that could not be claimed.

    Raises:
        LeaseHeld: the transfer has not ended; another worker has the lease.
        UnknownUpload: there is no such upload or job.
    """
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


def why_lost(session: Session, *, job_id: JobId) -> TransferCancelled | LeaseLost:
    """Return the error for a worker whose conditional change matched no row."""
    status = session.scalar(select(Job.status).where(Job.id == job_id))
    return TransferCancelled() if status == JobStatus.CANCELLED else LeaseLost()


def _chunks(session: Session, upload_id: UploadId) -> tuple[Chunk, ...]:
    found = session.execute(
        select(rows.Chunk.index, rows.Chunk.size, rows.Chunk.sha256, rows.Chunk.crc32c)
        .where(rows.Chunk.upload_id == upload_id)
        .order_by(rows.Chunk.index),
    )
    return tuple(
        Chunk(index=index, size_bytes=size, sha256=sha256, crc32c=crc32c)
        for index, size, sha256, crc32c in found
    )


def _renew(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    lease: timedelta,
    **columns: Any,  # noqa: ANN401  # values, or SQL expressions
) -> None:
    renewed = session.execute(
        update(Job)
        .where(
            Job.id == claimed.job_id,
            Job.lease_owner == claimed.owner,
            Job.status == JobStatus.PROCESSING,
        )
        .values(lease_until=func.now() + lease, **columns)
        .returning(Job.id),
    )
    if renewed.first() is None:
        raise why_lost(session, job_id=claimed.job_id)
