"""Adds waiting work of a tenant as rows and files, because thousands of requests take minutes.

The triggers of the product number the steps, count them and derive their jobs.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from schemas import object_keys, staging_layout
from schemas.events.uploads import StoredEvent, UploadFinalized
from schemas.ids import DocumentId, JobId, TenantId, UploadId
from schemas.lifecycle import DocumentStatus, Priority, StagingKind, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.documents import Document
from schemas.tables.events import emit
from schemas.tables.jobs import Job
from schemas.tables.uploads import Chunk, Upload

SOURCE: Final = "/waybill/bench"

BATCH: Final = 500
"""Steps of a transaction. Each one changes the counters of its tenant, and the database keeps every
version of that row until the transaction ends."""


def add_references(
    engine: Engine, tenant_id: TenantId, *, count: int, priority: Priority = Priority.INTERACTIVE
) -> None:
    """Add waiting references to objects that do not exist."""
    for session, size in _transactions(engine, count=count):
        ids = [UploadId(uuid4()) for _ in range(size)]
        session.add_all(
            Upload(
                id=upload_id,
                tenant_id=tenant_id,
                status=UploadStatus.FINALIZED,
                filename="missing.bin",
                size=0,
                chunk_size=1,
                chunk_count=0,
                staging=StagingKind.REFERENCE,
                source_key=f"{object_keys.incoming(tenant_id)}{upload_id}",
                expires_at=datetime.now(UTC),
            )
            for upload_id in ids
        )
        _add_jobs(session, ids, tenant_id=tenant_id, priority=priority, size=None)


def add_files(
    engine: Engine, tenant_id: TenantId, *, count: int, content: bytes, staging_dir: Path
) -> None:
    """Add waiting uploads of one chunk each, with their staged files."""
    sha256 = hashlib.sha256(content).digest()
    for session, size in _transactions(engine, count=count):
        ids = [UploadId(uuid4()) for _ in range(size)]
        for upload_id in ids:
            staging_layout.file_of(staging_dir, upload_id).write_bytes(content)
        session.add_all(
            Upload(
                id=upload_id,
                tenant_id=tenant_id,
                status=UploadStatus.FINALIZED,
                filename="note.bin",
                size=len(content),
                chunk_size=len(content),
                chunk_count=1,
                expires_at=datetime.now(UTC),
            )
            for upload_id in ids
        )
        session.flush()
        session.add_all(
            Chunk(upload_id=upload_id, index=0, size=len(content), sha256=sha256)
            for upload_id in ids
        )
        _add_jobs(
            session, ids, tenant_id=tenant_id, priority=Priority.INTERACTIVE, size=len(content)
        )


def add_documents(
    engine: Engine,
    tenant_id: TenantId,
    contents: Sequence[bytes],
    *,
    put: Callable[[ObjectKey, bytes], object],
) -> None:
    """Add stored PDFs whose reading waits, with their objects.

    Args:
        engine: of the database.
        tenant_id: their owner.
        contents: the bytes of each.
        put: stores an object.
    """
    for first in range(0, len(contents), BATCH):
        with Session(engine) as session, session.begin():
            for content in contents[first : first + BATCH]:
                _add_document(session, tenant_id, content, put=put)


def _add_document(
    session: Session,
    tenant_id: TenantId,
    content: bytes,
    *,
    put: Callable[[ObjectKey, bytes], object],
) -> None:
    upload_id, job_id, document_id = (
        UploadId(uuid4()),
        JobId(uuid4()),
        DocumentId(uuid4()),
    )
    stored = StoredEvent(
        upload_id=upload_id,
        job_id=job_id,
        document_id=document_id,
        filename="waiting.pdf",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        content_type="application/pdf",
        object_key=object_keys.original(tenant_id, upload_id),
        will_be_read=True,
    )
    put(ObjectKey(stored.object_key), content)
    session.add(
        Upload(
            id=upload_id,
            tenant_id=tenant_id,
            status=UploadStatus.STORED,
            filename=stored.filename,
            content_type=stored.content_type,
            size=stored.size,
            chunk_size=stored.size,
            chunk_count=1,
            expires_at=datetime.now(UTC),
        )
    )
    session.flush()
    session.add(Job(id=job_id, tenant_id=tenant_id, upload_id=upload_id, stage=JobStage.INGEST))
    session.flush()
    session.add(
        Document(
            id=document_id,
            tenant_id=tenant_id,
            upload_id=upload_id,
            job_id=job_id,
            status=DocumentStatus.READING,
            filename=stored.filename,
            content_type=stored.content_type,
            size=stored.size,
            sha256=stored.sha256,
            object_key=stored.object_key,
            etag="",
        )
    )
    steps.add_step(
        session,
        StepName.INGEST,
        job_id=job_id,
        tenant_id=tenant_id,
        priority=Priority.INTERACTIVE,
        event_id=emit(session, stored, tenant_id=tenant_id, source=SOURCE, now=datetime.now(UTC)),
    )
    session.flush()


def _transactions(engine: Engine, *, count: int) -> Iterator[tuple[Session, int]]:
    """Yield a session for each transaction, and how many uploads it adds."""
    for first in range(0, count, BATCH):
        with Session(engine) as session, session.begin():
            yield session, min(BATCH, count - first)


def _add_jobs(
    session: Session,
    upload_ids: list[UploadId],
    *,
    tenant_id: TenantId,
    priority: Priority,
    size: int | None,
) -> None:
    """Add the job of each upload with its waiting step."""
    session.flush()
    jobs = [
        Job(id=JobId(uuid4()), tenant_id=tenant_id, upload_id=upload_id, priority=priority)
        for upload_id in upload_ids
    ]
    session.add_all(jobs)
    session.flush()
    for job, upload_id in zip(jobs, upload_ids, strict=True):
        event = UploadFinalized(
            upload_id=upload_id, job_id=job.id, filename="waiting.bin", size=size
        )
        steps.add_step(
            session,
            StepName.TRANSFER,
            job_id=job.id,
            tenant_id=tenant_id,
            priority=priority,
            event_id=emit(
                session, event, tenant_id=tenant_id, source=SOURCE, now=datetime.now(UTC)
            ),
            total=size,
        )
