"""Uploads as the gateway leaves them: rows in the database, staged bytes, and the event."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import google_crc32c
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from gateway.settings import EVENT_SOURCE
from gateway.uploads.chunking import Plan
from gateway.uploads.finalize import add_job
from schemas import staging_layout
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobStatus, StagingKind, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage, emit
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Chunk, Upload

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

CHUNK_SIZE = 256 * 1024


def add_tenant(session: Session) -> TenantId:
    tenant_id = TenantId(uuid4())
    session.add(Tenant(id=tenant_id, name=f"tenant-{tenant_id}"))
    session.flush()
    return tenant_id


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
    """Add an upload with its chunks and its job; return the event, which is not in the outbox.

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
    # Only adds objects, which both kinds of session can do.
    add_job(cast("AsyncSession", session), upload, job_id=JobId(uuid4()), traceparent=None, now=now)
    return _taken_event(session)


def staged_objects(
    event: Envelope, content: bytes, *, chunk_size: int = CHUNK_SIZE
) -> dict[ObjectKey, bytes]:
    """Return the objects that hold an upload's chunks in a bucket."""
    return {
        staging_layout.chunk_key(
            event.tenantid,
            event.data.upload_id,
            index=index,
            sha256=hashlib.sha256(piece).digest(),
        ): piece
        for index, piece in enumerate(_pieces(content, chunk_size=chunk_size))
    }


def cancel_upload(session: Session, event: Envelope) -> Envelope:
    """Cancel a finalized upload; return the event, which is not in the outbox."""
    now = datetime.now(UTC)
    upload = session.get_one(Upload, event.data.upload_id)
    session.execute(
        update(Job)
        .where(Job.upload_id == upload.id)
        .values(status=JobStatus.CANCELLED, finished_at=now)
    )
    upload.status = UploadStatus.CANCELLED
    session.execute(delete(Chunk).where(Chunk.upload_id == upload.id))
    emit(
        session,
        UploadCancelled(upload_id=upload.id, job_id=event.job_id, filename=upload.filename),
        tenant_id=upload.tenant_id,
        source=EVENT_SOURCE,
        now=now,
    )
    return _taken_event(session)


def _pieces(content: bytes, *, chunk_size: int) -> list[bytes]:
    plan = Plan(size=len(content), chunk_size=chunk_size)
    return [
        content[(start := plan.offset_of(index)) : start + plan.size_of(index)]
        for index in range(plan.chunk_count)
    ]


def _taken_event(session: Session) -> Envelope:
    """Return the event that was just emitted, and keep it from the outbox: the test publishes it."""
    (message,) = (added for added in session.new if isinstance(added, OutboxMessage))
    session.expunge(message)
    session.flush()
    return envelope.decode(message.body)
