"""Whose an upload is: taken by one worker, kept by its heartbeat, let go or lost.

Every move is conditional on the caller's lease, so that a worker that was
thought dead cannot write over the one that took over.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from pipeline.messaging.event_task import RetryLater
from pipeline.transfer.checkpoint import Checkpoint
from pipeline.transfer.checks import Chunk
from pipeline.transfer.errors import LeaseLost, TransferCancelled
from schemas import object_keys
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import ACTIVE_JOBS, JobStage, JobStatus, StagingKind
from schemas.object_keys import ObjectKey
from schemas.tables import uploads as rows
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload


class LeaseHeld(RetryLater):
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
class ClaimedTransfer:
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
    checkpoint: Checkpoint | None
    """Where an earlier delivery got to; it means something only to `multipart_id`."""
    bytes_done: int
    """What earlier deliveries stored."""


def claim(
    session: Session, *, job_id: JobId, upload_id: UploadId, owner: str, lease: timedelta
) -> ClaimedTransfer | Settled:
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
    if claimed is None:
        return why_not(session, job_id=job_id, upload_id=upload_id)
    upload = session.get_one(Upload, upload_id)
    chunks = session.execute(
        select(rows.Chunk.index, rows.Chunk.size, rows.Chunk.sha256, rows.Chunk.crc32c)
        .where(rows.Chunk.upload_id == upload_id)
        .order_by(rows.Chunk.index),
    )
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
        chunks=tuple(
            Chunk(index=index, size_bytes=size, sha256=sha256, crc32c=crc32c)
            for index, size, sha256, crc32c in chunks
        ),
        object_key=object_keys.original(upload.tenant_id, upload_id),
        multipart_id=claimed.multipart_id,
        checkpoint=(
            None
            if claimed.digest_state is None
            else Checkpoint(claimed.digested_bytes, state=claimed.digest_state)
        ),
        bytes_done=claimed.bytes_done,
    )


def renew(
    session: Session,
    *,
    job_id: JobId,
    owner: str,
    lease: timedelta,
    bytes_done: int,
    multipart_id: str | None,
    checkpoint: Checkpoint | None,
) -> None:
    """Keep the lease, and show how far the transfer got.

    Raises:
        TransferCancelled: the client cancelled meanwhile.
        LeaseLost: the lease ran out and another worker took over.
    """
    _keep(
        session,
        job_id=job_id,
        owner=owner,
        lease=lease,
        bytes_done=func.greatest(Job.bytes_done, bytes_done),
        multipart_id=multipart_id,
        digested_bytes=0 if checkpoint is None else checkpoint.digested_bytes,
        digest_state=None if checkpoint is None else checkpoint.state,
    )


def begin_anew(
    session: Session, *, job_id: JobId, owner: str, lease: timedelta, multipart_id: str
) -> None:
    """Keep the lease, with a multipart upload that has no parts yet.

    Left as it was, what an earlier one had would hide how far this one gets, and no slice
    of it would end in time. A crash counts until there is more than was lost: where every
    one of them costs the multipart upload, the transfer gets nowhere.

    Raises:
        TransferCancelled: the client cancelled meanwhile.
        LeaseLost: the lease ran out and another worker took over.
    """
    _keep(
        session,
        job_id=job_id,
        owner=owner,
        lease=lease,
        bytes_done=0,
        multipart_id=multipart_id,
        digested_bytes=0,
        digest_state=None,
    )


def release(session: Session, *, job_id: JobId, owner: str) -> None:
    """Let the next delivery have the upload at once, where this one ends without result."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.lease_owner == owner)
        .values(lease_owner=None, lease_until=None),
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


def is_free() -> ColumnElement[bool]:
    """Whether nobody has the upload, as a condition on its job."""
    return or_(Job.lease_until.is_(None), Job.lease_until < func.now())


def why_not(session: Session, *, job_id: JobId, upload_id: UploadId) -> Settled:
    """Say how an upload that could not be taken is settled.

    Raises:
        LeaseHeld: it is not; another worker has it.
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
    """Return what to tell a worker whose change met no row."""
    status = session.scalar(select(Job.status).where(Job.id == job_id))
    return TransferCancelled() if status == JobStatus.CANCELLED else LeaseLost()


def _keep(
    session: Session,
    *,
    job_id: JobId,
    owner: str,
    lease: timedelta,
    **columns: Any,  # noqa: ANN401  # values, or expressions of the database
) -> None:
    kept = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.lease_owner == owner, Job.status == JobStatus.PROCESSING)
        .values(lease_until=func.now() + lease, **columns)
        .returning(Job.id),
    )
    if kept.first() is None:
        raise why_lost(session, job_id=job_id)
