"""Jobs, uploads and documents that ended long ago."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import update
from sqlalchemy.orm import Session

from pipeline.context import database_time
from schemas import object_keys
from schemas.ids import DocumentId, EventId, JobId, RevisionId, TenantId, UploadId
from schemas.lifecycle import (
    DocumentStatus,
    JobKind,
    JobStatus,
    Priority,
    RevisionState,
    StepStatus,
    UploadStatus,
)
from schemas.steps import STEPS, JobStage, StepName
from schemas.tables.documents import Document, Entity, Page, PageImage, Revision
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Chunk, Upload

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

STEP_STATUSES = {
    JobStatus.COMPLETED: StepStatus.COMPLETED,
    JobStatus.FAILED: StepStatus.FAILED,
    JobStatus.CANCELLED: StepStatus.CANCELLED,
}


def add_upload(
    session: Session,
    tenant_id: TenantId,
    *,
    status: UploadStatus,
    is_finalized: bool = True,
    at: datetime = LONG_AGO,
    chunks: int = 1,
) -> Upload:
    """Add an upload with its chunks."""
    upload = Upload(
        id=UploadId(uuid4()),
        tenant_id=tenant_id,
        status=status,
        filename="a.pdf",
        size=7,
        chunk_size=7,
        chunk_count=chunks,
        created_at=at,
        expires_at=at,
        finalized_at=at if is_finalized else None,
    )
    session.add(upload)
    session.flush()
    session.add_all(
        Chunk(upload_id=upload.id, index=index, size=7, sha256=bytes(32)) for index in range(chunks)
    )
    session.flush()
    return upload


def add_job(
    session: Session,
    tenant_id: TenantId,
    *,
    status: JobStatus = JobStatus.COMPLETED,
    upload: Upload | None = None,
    kind: JobKind = JobKind.UPLOAD,
    step: StepName = StepName.TRANSFER,
    at: datetime = LONG_AGO,
) -> Job:
    """Add a job with one step, both ended at the given time."""
    job = Job(
        id=JobId(uuid4()),
        tenant_id=tenant_id,
        kind=kind,
        upload_id=None if upload is None else upload.id,
        stage=JobStage.TRANSFER,
    )
    session.add(job)
    session.flush()
    session.add(
        Step(
            job_id=job.id,
            name=step,
            ordinal=STEPS[step].ordinal,
            tenant_id=tenant_id,
            priority=Priority.INTERACTIVE,
            event_id=EventId(uuid4()),
            status=STEP_STATUSES[status],
        )
    )
    session.flush()
    session.execute(update(Job).where(Job.id == job.id).values(status=status, finished_at=at))
    return job


def add_document(
    session: Session,
    tenant_id: TenantId,
    *,
    at: datetime = LONG_AGO,
    job_at: datetime | None = None,
    pages: int = 2,
) -> Document:
    """Add a stored upload with its ended job and its document, which has been read."""
    upload = add_upload(session, tenant_id, status=UploadStatus.STORED, at=at)
    job = add_job(session, tenant_id, upload=upload, at=job_at or at)
    document = Document(
        id=DocumentId(uuid4()),
        tenant_id=tenant_id,
        upload_id=upload.id,
        job_id=job.id,
        status=DocumentStatus.INGESTED,
        filename="a.pdf",
        content_type="application/pdf",
        size=7,
        sha256="0" * 64,
        object_key=object_keys.original(tenant_id, upload.id),
        etag="e",
        created_at=at,
    )
    revision = Revision(
        id=RevisionId(uuid4()),
        document_id=document.id,
        tenant_id=tenant_id,
        job_id=job.id,
        number=1,
        pipeline_version="test",
        state=RevisionState.PUBLISHED,
        page_count=pages,
    )
    session.add(document)
    session.flush()
    session.add(revision)
    session.flush()
    document.revision_id = revision.id
    session.add_all(
        Page(revision_id=revision.id, number=number, text="text") for number in range(1, pages + 1)
    )
    session.flush()
    session.add(
        Entity(
            revision_id=revision.id,
            page=1,
            ordinal=0,
            label="X",
            text="t",
            normal_form="t",
            start=0,
            end=1,
        )
    )
    session.flush()
    return document


def add_image(
    session: Session, document: Document, *, page: int, status: JobStatus, at: datetime = LONG_AGO
) -> Job:
    """Add the job of a page's image, which ended with the given status."""
    assert document.revision_id is not None
    job = add_job(
        session,
        document.tenant_id,
        status=status,
        kind=JobKind.RENDER,
        step=StepName.RENDER,
        at=at,
    )
    session.add(PageImage(revision_id=document.revision_id, page=page, job_id=job.id))
    session.flush()
    return job


def keep_documents_for(session: Session, tenant_id: TenantId, duration: timedelta | None) -> None:
    session.execute(
        update(Tenant).where(Tenant.id == tenant_id).values(document_retention=duration)
    )


def an_event_id() -> EventId:
    return EventId(uuid4())


def yesterday(session: Session) -> datetime:
    return database_time(session) - timedelta(days=1)
