"""Uploads as the gateway leaves them: rows in the database, staged bytes, and the event."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import google_crc32c
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from gateway.settings import EVENT_SOURCE
from gateway.uploads.chunking import Plan
from schemas import staging_layout
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled, UploadFinalized
from schemas.ids import EventId, JobId, TenantId, UploadId
from schemas.lifecycle import Priority, StagingKind, StepStatus, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.events import EventRecord, emit
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Chunk, Upload

CHUNK_SIZE = 256 * 1024


def add_tenant(session: Session) -> TenantId:
    tenant_id = TenantId(uuid4())
    session.add(Tenant(id=tenant_id, name=f"tenant-{tenant_id}"))
    session.flush()
    return tenant_id


def upload_of(event: Envelope) -> UploadId:
    """Return the upload of an event that has one."""
    assert event.upload_id is not None
    return event.upload_id


def add_finalized_upload(
    session: Session,
    *,
    tenant_id: TenantId,
    staging_dir: Path | None,
    content: bytes,
    filename: str = "file.bin",
    content_type: str | None = None,
    chunk_size: int = CHUNK_SIZE,
    sha256: str | None = None,
    staging: StagingKind = StagingKind.DIRECTORY,
    source_key: str | None = None,
) -> Envelope:
    """Add an upload with its chunks, its job and its queued transfer; return the event to publish.

    Bytes staged in the directory are written here; staged objects are the caller's: see
    `staged_objects`. The size of an object named by reference is unknown, and is 0 here.
    """
    if staging is StagingKind.REFERENCE:
        content = b""
    now = datetime.now(UTC)
    pieces = _pieces(content, chunk_size=chunk_size)
    upload = Upload(
        id=UploadId(uuid4()),
        tenant_id=tenant_id,
        status=UploadStatus.OPEN,
        filename=filename,
        content_type=content_type,
        size=len(content),
        chunk_size=chunk_size,
        chunk_count=len(pieces),
        sha256=sha256,
        staging=staging,
        source_key=source_key,
        expires_at=now + timedelta(hours=1),
    )
    session.add(upload)
    session.flush()
    session.add_all(
        Chunk(
            upload_id=upload.id,
            index=index,
            size=len(piece),
            sha256=hashlib.sha256(piece).digest(),
            crc32c=google_crc32c.value(piece).to_bytes(4, "big"),
        )
        for index, piece in enumerate(pieces)
    )
    if staging_dir is not None and staging is StagingKind.DIRECTORY:
        (staging_dir / str(upload.id)).write_bytes(content)
    upload.status, upload.finalized_at = UploadStatus.FINALIZED, now
    session.flush()
    job = Job(
        id=JobId(uuid4()), tenant_id=tenant_id, upload_id=upload.id, priority=Priority.INTERACTIVE
    )
    session.add(job)
    event_id = emit(
        session,
        UploadFinalized(
            upload_id=upload.id,
            job_id=job.id,
            filename=filename,
            size=None if staging is StagingKind.REFERENCE else len(content),
        ),
        tenant_id=tenant_id,
        source=EVENT_SOURCE,
        now=now,
    )
    return _queued(session, StepName.TRANSFER, job=job, event_id=event_id, total=upload.size)


def staged_objects(
    event: Envelope, content: bytes, *, chunk_size: int = CHUNK_SIZE
) -> dict[ObjectKey, bytes]:
    """Return the objects that hold an upload's chunks in a bucket."""
    return {
        staging_layout.chunk_key(
            event.tenantid,
            upload_of(event),
            index=index,
            sha256=hashlib.sha256(piece).digest(),
        ): piece
        for index, piece in enumerate(_pieces(content, chunk_size=chunk_size))
    }


def cancel_upload(session: Session, event: Envelope) -> Envelope:
    """Cancel a finalized upload; return the event, which is not in the outbox."""
    upload = session.get_one(Upload, event.upload_id)
    upload.status = UploadStatus.CANCELLED
    session.flush()
    job = session.scalars(select(Job).where(Job.upload_id == upload.id)).one()
    session.execute(steps.cancel(job.id))
    session.execute(delete(Chunk).where(Chunk.upload_id == upload.id))
    event_id = emit(
        session,
        UploadCancelled(upload_id=upload.id, job_id=job.id, filename=upload.filename),
        tenant_id=upload.tenant_id,
        source=EVENT_SOURCE,
        now=datetime.now(UTC),
    )
    (message,) = (added for added in session.new if isinstance(added, OutboxMessage))
    session.expunge(message)
    return _queued(session, StepName.CLEANUP, job=job, event_id=event_id)


def _pieces(content: bytes, *, chunk_size: int) -> list[bytes]:
    plan = Plan(size=len(content), chunk_size=chunk_size)
    return [
        content[(start := plan.offset_of(index)) : start + plan.size_of(index)]
        for index in range(plan.chunk_count)
    ]


def _queued(
    session: Session,
    name: StepName,
    *,
    job: Job,
    event_id: EventId,
    total: int | None = None,
) -> Envelope:
    """Add a step whose event is in the broker already; return the event: the test publishes it."""
    steps.add_step(
        session,
        name,
        job_id=job.id,
        tenant_id=job.tenant_id,
        priority=job.priority,
        event_id=event_id,
        total=total,
    )
    session.flush()
    session.execute(
        update(Step)
        .where(Step.job_id == job.id, Step.name == name)
        .values(
            status=StepStatus.QUEUED,
            releases=1,
            overdue_at=func.now() + timedelta(hours=1),
        )
    )
    return envelope.decode(session.get_one(EventRecord, event_id).body)
