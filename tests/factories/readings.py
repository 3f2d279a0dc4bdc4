"""Stored documents whose reading waits, and pages as a reader sends them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.context import database_time
from pipeline.enrich.annotations import Entity
from pipeline.enrich.passages import Budget
from pipeline.ingest.applied_event import EventContext
from pipeline.ingest.extractors.extractor import Line, Span, SpanKind
from pipeline.ingest.frames import PageReading
from pipeline.ingest.record import DocumentToRead
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from schemas.events.documents import ReprocessRequested
from schemas.events.uploads import StoredEvent
from schemas.ids import DocumentId, EventId, JobId, TenantId, UploadId
from schemas.lifecycle import (
    DocumentStatus,
    JobKind,
    Priority,
    StagingKind,
    StepStatus,
    UploadStatus,
)
from schemas.outcomes import Outcome
from schemas.settings import StepSettings
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.documents import Document
from schemas.tables.events import emit
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload

BUDGET: Final = Budget(tokens=200, overlap=30)
SETTINGS: Final = StepSettings(step_lease=timedelta(minutes=1))
SHA256: Final = "ab" * 32
SENTENCE: Final = "Write to desk@example.com."


@dataclass(frozen=True, kw_only=True)
class WaitingReading:
    """A job whose steps that read a document wait for a worker."""

    document: DocumentToRead
    tenant_id: TenantId
    event_id: EventId

    @property
    def job_id(self) -> JobId:
        return self.document.job_id

    def claim(self, session: Session, name: StepName, *, owner: str = "one") -> ClaimedStep:
        claimed = lease.claim(
            session, job_id=self.job_id, name=name, owner=owner, settings=SETTINGS
        )
        assert isinstance(claimed, ClaimedStep), claimed
        return claimed

    def context(self, session: Session) -> EventContext:
        return EventContext(
            event_id=self.event_id,
            tenant_id=self.tenant_id,
            now=database_time(session),
            traceparent=None,
        )


def add_stored(
    session: Session, *, tenant_id: TenantId, sha256: str = SHA256, filename: str = "a.pdf"
) -> WaitingReading:
    """Add a stored document whose steps `metadata` and `ingest` wait, as a transfer does."""
    upload = Upload(
        id=UploadId(uuid4()),
        tenant_id=tenant_id,
        status=UploadStatus.STORED,
        filename=filename,
        size=7,
        chunk_size=7,
        chunk_count=1,
        staging=StagingKind.DIRECTORY,
        expires_at=database_time(session),
    )
    job = Job(id=JobId(uuid4()), tenant_id=tenant_id, upload_id=upload.id, stage=JobStage.INGEST)
    session.add(upload)
    session.flush()
    session.add(job)
    session.flush()
    stored = StoredEvent(
        upload_id=upload.id,
        job_id=job.id,
        document_id=DocumentId(uuid4()),
        filename=filename,
        size=7,
        sha256=sha256,
        content_type="application/pdf",
        object_key=f"originals/{tenant_id}/{upload.id}",
        will_be_read=True,
    )
    job.result = {"document_id": str(stored.document_id), "sha256": sha256}
    session.add(
        Document(
            id=stored.document_id,
            tenant_id=tenant_id,
            upload_id=upload.id,
            job_id=job.id,
            status=DocumentStatus.READING,
            filename=filename,
            content_type=stored.content_type,
            size=stored.size,
            sha256=sha256,
            object_key=stored.object_key,
            etag="e",
        )
    )
    return _with_steps(session, stored, tenant_id=tenant_id)


def add_reprocessing(session: Session, read: WaitingReading) -> WaitingReading:
    """Add a job that reads the document of an earlier reading again."""
    before = read.document
    job = Job(
        id=JobId(uuid4()),
        tenant_id=read.tenant_id,
        kind=JobKind.REPROCESS,
        upload_id=None,
        stage=JobStage.METADATA,
    )
    session.add(job)
    session.flush()
    requested = ReprocessRequested(
        document_id=before.document_id,
        upload_id=before.upload_id,
        job_id=job.id,
        filename=before.filename,
        size=before.size,
        sha256=before.sha256,
        content_type=before.content_type,
        object_key=before.object_key,
    )
    return _with_steps(session, requested, tenant_id=read.tenant_id)


def _with_steps(
    session: Session, document: DocumentToRead, *, tenant_id: TenantId
) -> WaitingReading:
    event_id = emit(
        session, document, tenant_id=tenant_id, source="/test", now=database_time(session)
    )
    for name in (StepName.METADATA, StepName.INGEST):
        steps.add_step(
            session,
            name,
            job_id=document.job_id,
            tenant_id=tenant_id,
            priority=Priority.INTERACTIVE,
            event_id=event_id,
        )
        session.flush()
    return WaitingReading(document=document, tenant_id=tenant_id, event_id=event_id)


def a_page(number: int, *, outcome: Outcome = Outcome.COMPLETE) -> PageReading:
    """Return a page with one sentence and one entity, or one that is not complete."""
    if outcome is Outcome.NO_TEXT:
        return PageReading(number=number, outcome=outcome, engine="pdfium")
    if outcome is not Outcome.COMPLETE:
        return PageReading(number=number, outcome=outcome, reason="Why.", engine="pdfium")
    return PageReading(
        number=number,
        text=SENTENCE,
        lines=(Line(0, 26, 72, 90, 300, 102),),
        spans=(Span(SpanKind.FOOTER, 9, 25),),
        width_points=595.0,
        height_points=842.0,
        engine="pdfium",
        engine_version="5.15",
        sentences=((0, 26),),
        entities=(Entity("EMAIL", "desk@example.com", "desk@example.com", 9, 25),),
        language="en",
        language_confidence=0.5,
    )


def status_of(session: Session, job_id: JobId, name: StepName) -> StepStatus | None:
    """Return the status of a step; None if the job has no such step."""
    return session.scalar(
        select(steps.Step.status).where(steps.Step.job_id == job_id, steps.Step.name == name)
    )
