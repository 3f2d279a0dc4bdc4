"""Uploads as the gateway leaves them: rows in the database, bytes in staging, an event to tell."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import google_crc32c
from sqlalchemy import update
from sqlalchemy.orm import Session

from schemas import staging_layout
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled, UploadFinalized
from schemas.ids import EventId, JobId, TenantId, UploadId
from schemas.lifecycle import JobStatus, StagingKind, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.tables.jobs import Job
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Chunk, Upload


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
    chunk_size: int = 256 * 1024,
    sha256: str | None = None,
    staging: StagingKind = StagingKind.DIRECTORY,
    source_key: str | None = None,
) -> Envelope:
    """Stage `content`, add its rows, and return the event the outbox would carry.

    What is staged in a bucket is put there by the caller: see `staged_objects`.
    Of an object named by reference nobody knows the size yet.
    """
    if staging is StagingKind.REFERENCE:
        content = b""
    upload_id, job_id = UploadId(uuid4()), JobId(uuid4())
    now = datetime.now(UTC)
    pieces = [content[start : start + chunk_size] for start in range(0, len(content), chunk_size)]
    session.add(
        Upload(
            id=upload_id,
            tenant_id=tenant_id,
            status=UploadStatus.FINALIZED,
            filename=filename,
            content_type=content_type,
            size=len(content),
            chunk_size=chunk_size,
            chunk_count=len(pieces),
            sha256=sha256,
            staging=staging,
            source_key=source_key,
            expires_at=now + timedelta(hours=1),
            finalized_at=now,
        ),
    )
    session.flush()
    session.add_all(
        Chunk(
            upload_id=upload_id,
            index=index,
            size=len(piece),
            sha256=hashlib.sha256(piece).digest(),
            crc32c=google_crc32c.value(piece).to_bytes(4, "big"),
        )
        for index, piece in enumerate(pieces)
    )
    session.add(
        Job(
            id=job_id,
            tenant_id=tenant_id,
            upload_id=upload_id,
            status=JobStatus.QUEUED,
            bytes_total=len(content),
        ),
    )
    if staging_dir is not None and staging is StagingKind.DIRECTORY:
        (staging_dir / str(upload_id)).write_bytes(content)
    return Envelope(
        id=EventId(uuid4()),
        source="/waybill/tests",
        subject=str(upload_id),
        time=now,
        tenantid=tenant_id,
        data=UploadFinalized(
            upload_id=upload_id, job_id=job_id, filename=filename, size=len(content)
        ),
    )


def staged_objects(
    event: Envelope, content: bytes, *, chunk_size: int = 256 * 1024
) -> dict[ObjectKey, bytes]:
    """Return the objects that hold an upload's chunks in a bucket."""
    pieces = [content[start : start + chunk_size] for start in range(0, len(content), chunk_size)]
    return {
        staging_layout.chunk_key(
            event.tenantid,
            event.data.upload_id,
            index=index,
            sha256=hashlib.sha256(piece).digest(),
        ): piece
        for index, piece in enumerate(pieces)
    }


def cancel_upload(session: Session, event: Envelope) -> Envelope:
    """Do to the rows what the gateway does, and return its event."""
    session.execute(update(Job).where(Job.id == event.job_id).values(status=JobStatus.CANCELLED))
    session.execute(
        update(Upload)
        .where(Upload.id == event.data.upload_id)
        .values(status=UploadStatus.CANCELLED)
    )
    return Envelope(
        id=EventId(uuid4()),
        source="/waybill/tests",
        subject=event.subject,
        time=datetime.now(UTC),
        tenantid=event.tenantid,
        data=UploadCancelled(
            upload_id=event.data.upload_id, job_id=event.job_id, filename="file.bin"
        ),
    )
