"""The changes of a reading to document, job and outbox.

One transaction writes the pages, passages, entities, state and event of a
document. Until it commits, only progress is visible.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from pipeline.ingest.frames import DocumentOpened, DocumentRead
from pipeline.messaging import inbox
from schemas.errors import DomainError, ErrorCode
from schemas.events.documents import DocumentFailed, IngestedEvent
from schemas.events.uploads import StoredEvent
from schemas.ids import EventId, TenantId
from schemas.lifecycle import DocumentStatus, JobStage, JobStatus
from schemas.tables.documents import Document
from schemas.tables.inbox import InboxMessage
from schemas.tables.jobs import Job
from schemas.tables.outbox import emit

CONSUMER: Final = "ingest"
SOURCE: Final = "/waybill/pipeline/ingest"


@dataclass(frozen=True, kw_only=True)
class EventContext:
    """The event that is applied, and the time at which it is applied."""

    event_id: EventId
    tenant_id: TenantId
    now: datetime
    traceparent: str | None


class NoLongerWanted(DomainError):
    """The upload was purged; nothing read from it may be kept."""

    code = ErrorCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("the upload was cancelled")


def is_applied(session: Session, *, event_id: EventId) -> bool:
    """Return whether the event was applied before."""
    found = session.get(InboxMessage, (CONSUMER, event_id))
    return found is not None


def check_wanted(session: Session, stored: StoredEvent) -> None:
    """Check that the upload is not cancelled.

    Raises:
        NoLongerWanted: the upload is cancelled.
    """
    status = session.scalar(select(Job.status).where(Job.id == stored.job_id))
    if status == JobStatus.CANCELLED:
        raise NoLongerWanted


def show_progress(
    session: Session, stored: StoredEvent, *, pages_done: int, pages_total: int
) -> None:
    """Publish the progress of the reading.

    Raises:
        NoLongerWanted: the upload was purged meanwhile; the purge may be
            waiting for this worker's lock on the document.
    """
    shown = session.execute(
        _update_job(stored)
        .values(
            pages_done=func.greatest(Job.pages_done, pages_done),
            pages_total=pages_total,
        )
        .returning(Job.id),
    )
    if shown.first() is None:
        check_wanted(session, stored)


def begin(session: Session, *, event_id: EventId) -> bool:
    """Claim the event for this transaction; return False if another delivery applied it."""
    return inbox.is_first_delivery(session, consumer=CONSUMER, event_id=event_id)


def lock_document(session: Session, stored: StoredEvent) -> None:
    """Lock the document against deletion until this transaction ends.

    Raises:
        NoLongerWanted: the document is already deleted.
    """
    held = session.scalar(
        select(Document.id)
        .where(Document.id == stored.document_id)
        .with_for_update(read=True, key_share=True)
    )
    if held is None:
        raise NoLongerWanted


def delete_purged(session: Session, stored: StoredEvent) -> None:
    """Delete the document of a purged upload whose purge did not wait for the reader's lock."""
    is_purged = exists().where(Job.id == stored.job_id, Job.status == JobStatus.CANCELLED)
    session.execute(delete(Document).where(Document.id == stored.document_id, is_purged))


def record_ingested(
    session: Session,
    stored: StoredEvent,
    *,
    opened: DocumentOpened,
    read: DocumentRead,
    event_context: EventContext,
) -> None:
    """Settle document and job after the last page, and emit the event.

    Raises:
        NoLongerWanted: the upload was purged meanwhile; the transaction must roll back.
    """
    session.execute(
        update(Document)
        .where(Document.id == stored.document_id, Document.status == DocumentStatus.STORED)
        .values(
            status=DocumentStatus.INGESTED,
            page_count=opened.page_count,
            language=opened.language,
            truncated=bool(read.truncated),
            pdf_metadata=msgspec.to_builtins(opened.metadata),
            ingested_at=event_context.now,
        ),
    )
    result = session.scalar(select(Job.result).where(Job.id == stored.job_id)) or {}
    settled = session.execute(
        _update_job(stored)
        .values(
            status=JobStatus.COMPLETED,
            stage=JobStage.DONE,
            pages_done=read.pages_read,
            pages_total=read.pages_read,
            finished_at=event_context.now,
            result=result
            | {
                "pages": opened.page_count,
                "pages_failed": read.pages_failed,
                "passages": read.passages,
                "entities": read.entities,
                "language": opened.language,
                "truncated": [str(limit) for limit in read.truncated],
            },
        )
        .returning(Job.id),
    )
    if settled.first() is None:
        check_wanted(session, stored)
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
            language=opened.language,
            truncated=bool(read.truncated),
        ),
        tenant_id=event_context.tenant_id,
        source=SOURCE,
        now=event_context.now,
        traceparent=event_context.traceparent,
    )


def record_failed(
    session: Session, stored: StoredEvent, *, error: DomainError, event_context: EventContext
) -> None:
    """Settle document and job with the error, and emit the event; once per event."""
    if not begin(session, event_id=event_context.event_id):
        return
    session.execute(
        update(Document)
        .where(Document.id == stored.document_id, Document.status == DocumentStatus.STORED)
        .values(status=DocumentStatus.FAILED, error_code=error.code, error_detail=str(error)),
    )
    settled = session.execute(
        _update_job(stored)
        .values(
            status=JobStatus.FAILED,
            error_code=error.code,
            error_detail=str(error),
            error_retryable=error.retryable,
            finished_at=event_context.now,
        )
        .returning(Job.id),
    )
    if settled.first() is None:
        delete_purged(session, stored)
        return
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


def _update_job(stored: StoredEvent) -> Any:  # noqa: ANN401  # the type of SQLAlchemy's update is long
    return update(Job).where(
        Job.id == stored.job_id,
        Job.status == JobStatus.PROCESSING,
        Job.stage == JobStage.INGEST,
    )
