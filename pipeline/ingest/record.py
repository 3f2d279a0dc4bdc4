"""The changes of a reading to document, step and job.

One transaction writes the pages, passages, entities, status and event of a
document. Until it commits, only progress is visible.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from pipeline.ingest.frames import DocumentOpened, DocumentRead
from pipeline.steps import lease
from pipeline.steps.errors import StepCancelled
from pipeline.steps.lease import ClaimedStep
from schemas.errors import DomainError
from schemas.events.documents import DocumentFailed, IngestedEvent
from schemas.events.uploads import StoredEvent
from schemas.ids import TenantId
from schemas.lifecycle import DocumentStatus, JobStatus, StepStatus
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables.documents import Document
from schemas.tables.events import emit
from schemas.tables.jobs import Job

SOURCE: Final = "/waybill/pipeline/ingest"


@dataclass(frozen=True, kw_only=True)
class EventContext:
    """The event that is applied, and the time at which it is applied."""

    tenant_id: TenantId
    now: datetime
    traceparent: str | None


def lock_document(session: Session, stored: StoredEvent) -> None:
    """Lock the document against deletion until this transaction ends.

    Raises:
        StepCancelled: the document is already deleted.
    """
    held = session.scalar(
        select(Document.id)
        .where(Document.id == stored.document_id)
        .with_for_update(read=True, key_share=True)
    )
    if held is None:
        raise StepCancelled


def delete_purged(session: Session, stored: StoredEvent) -> None:
    """Delete the document of a purged upload whose purge did not wait for the reader's lock."""
    is_purged = exists().where(Job.id == stored.job_id, Job.status == JobStatus.CANCELLED)
    session.execute(delete(Document).where(Document.id == stored.document_id, is_purged))


def record_ingested(
    session: Session,
    stored: StoredEvent,
    claimed: ClaimedStep,
    *,
    opened: DocumentOpened,
    read: DocumentRead,
    settings: StepSettings,
    event_context: EventContext,
) -> None:
    """End document and step after the last page, and emit the event.

    Raises:
        StepCancelled, LeaseLost: see `lease.renew`; the transaction must roll back.
    """
    lease.complete(session, claimed, done=read.pages_read, total=read.pages_read, settings=settings)
    session.execute(
        update(Document)
        .where(Document.id == stored.document_id, Document.status == DocumentStatus.STORED)
        .values(
            status=DocumentStatus.INGESTED,
            page_count=opened.page_count,
            language=read.language,
            truncated=bool(read.truncated),
            pdf_metadata=msgspec.to_builtins(opened.metadata),
            ingested_at=event_context.now,
        ),
    )
    result = session.scalar(select(Job.result).where(Job.id == stored.job_id)) or {}
    session.execute(
        update(Job)
        .where(Job.id == stored.job_id)
        .values(
            result=result
            | {
                "pages": opened.page_count,
                "pages_failed": read.pages_failed,
                "passages": read.passages,
                "entities": read.entities,
                "language": read.language,
                "truncated": [str(limit) for limit in read.truncated],
            },
        )
    )
    emit(
        session,
        IngestedEvent(
            document_id=stored.document_id,
            upload_id=stored.upload_id,
            job_id=stored.job_id,
            filename=stored.filename,
            sha256=stored.sha256,
            pages=opened.page_count,
            passages=read.passages,
            entities=read.entities,
            language=read.language,
            truncated=bool(read.truncated),
        ),
        tenant_id=event_context.tenant_id,
        source=SOURCE,
        now=event_context.now,
        traceparent=event_context.traceparent,
    )


def record_failed(
    session: Session,
    stored: StoredEvent,
    *,
    error: DomainError,
    settings: StepSettings,
    event_context: EventContext,
) -> StepStatus:
    """End the step and the document with the error and emit the event, unless the step has ended.

    Returns:
        How the step ended.

    Raises:
        LeaseHeld: another worker has the lease; the transaction must roll back.
        UnknownStep: the job has no such step.
    """
    ended_before = lease.fail(
        session, job_id=stored.job_id, name=StepName.INGEST, error=error, settings=settings
    )
    if ended_before is not None:
        return ended_before
    session.execute(
        update(Document)
        .where(Document.id == stored.document_id, Document.status == DocumentStatus.STORED)
        .values(status=DocumentStatus.FAILED, error_code=error.code, error_detail=str(error)),
    )
    emit(
        session,
        DocumentFailed(
            document_id=stored.document_id,
            upload_id=stored.upload_id,
            job_id=stored.job_id,
            filename=stored.filename,
            code=error.code,
            detail=str(error),
        ),
        tenant_id=event_context.tenant_id,
        source=SOURCE,
        now=event_context.now,
        traceparent=event_context.traceparent,
    )
    return StepStatus.FAILED
