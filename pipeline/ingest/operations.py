"""What reading a document changes in the database.

A document's pages, passages, entities, state and event appear together or not
at all. Until that one transaction commits, reading shows nothing but progress.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.orm import Session

from pipeline.ingest.outcome import DocumentOpened, DocumentRead, PageReading
from pipeline.messaging import inbox
from schemas.errors import DomainError, ErrorCode
from schemas.events.documents import DocumentFailed, IngestedEvent
from schemas.events.uploads import StoredEvent
from schemas.ids import EventId, TenantId
from schemas.lifecycle import DocumentStatus, JobStage, JobStatus
from schemas.tables.documents import Document, Entity, Page, Passage
from schemas.tables.inbox import InboxMessage
from schemas.tables.jobs import Job
from schemas.tables.outbox import emit

CONSUMER: Final = "ingest"
SOURCE: Final = "/waybill/pipeline/ingest"

ROWS_PER_STATEMENT: Final = 1_000
"""Rows held before they are sent; with a page's own limits it bounds the worker's memory."""


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """The event being applied, and when."""

    event_id: EventId
    tenant_id: TenantId
    now: datetime
    traceparent: str | None


class NoLongerWanted(DomainError):
    """The upload was purged; nothing that is read of it may be kept."""

    code = ErrorCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("the upload was cancelled")


def is_applied(session: Session, *, event_id: EventId) -> bool:
    """Whether the event was applied before: then the document need not be read again."""
    found = session.get(InboxMessage, (CONSUMER, event_id))
    return found is not None


def check_wanted(session: Session, stored: StoredEvent) -> None:
    """Look whether the document is still to be read.

    Raises:
        NoLongerWanted: it is not.
    """
    status = session.scalar(select(Job.status).where(Job.id == stored.job_id))
    if status == JobStatus.CANCELLED:
        raise NoLongerWanted


def show_progress(
    session: Session, stored: StoredEvent, *, pages_done: int, pages_total: int
) -> None:
    """Say how far reading got.

    Raises:
        NoLongerWanted: the upload was purged meanwhile, and the purge may be
            waiting for this worker to let go of the document.
    """
    shown = session.execute(
        _of_ingest(stored)
        .values(
            pages_done=func.greatest(Job.pages_done, pages_done),
            pages_total=pages_total,
        )
        .returning(Job.id),
    )
    if shown.first() is None:
        check_wanted(session, stored)


def begin(session: Session, *, event_id: EventId) -> bool:
    """Claim the event for this transaction; False where another delivery applied it first."""
    return inbox.is_first_delivery(session, consumer=CONSUMER, event_id=event_id)


def hold_document(session: Session, stored: StoredEvent) -> None:
    """Keep the document from being deleted before this transaction ends.

    Raises:
        NoLongerWanted: it is deleted already.
    """
    held = session.scalar(
        select(Document.id)
        .where(Document.id == stored.document_id)
        .with_for_update(read=True, key_share=True)
    )
    if held is None:
        raise NoLongerWanted


def forget(session: Session, stored: StoredEvent) -> None:
    """Delete the document of a purged upload, if the purge could not wait for its reader to let go."""
    is_purged = exists().where(Job.id == stored.job_id, Job.status == JobStatus.CANCELLED)
    session.execute(delete(Document).where(Document.id == stored.document_id, is_purged))


class PageWriter:
    """Writes pages as they are read, some statements at a time."""

    def __init__(self, session: Session, stored: StoredEvent) -> None:
        self._session = session
        self._document_id = stored.document_id
        self._pages: list[dict[str, Any]] = []
        self._passages: list[dict[str, Any]] = []
        self._entities: list[dict[str, Any]] = []

    def write(self, page: PageReading) -> None:
        place = {"document_id": self._document_id, "page": page.number}
        self._pages.append(
            {
                "document_id": self._document_id,
                "number": page.number,
                "text": page.text,
                "error_code": page.error_code,
                "width_points": page.width_points,
                "height_points": page.height_points,
            },
        )
        self._passages += (
            {
                **place,
                "ordinal": passage.ordinal,
                "start": passage.start,
                "end": passage.end,
                "text": page.text[passage.start : passage.end],
            }
            for passage in page.passages
        )
        self._entities += (
            {
                **place,
                "ordinal": ordinal,
                "label": entity.label,
                "text": entity.text,
                "normal_form": entity.normal,
                "start": entity.start,
                "end": entity.end,
            }
            for ordinal, entity in enumerate(page.entities)
        )
        if len(self._pages) + len(self._passages) + len(self._entities) >= ROWS_PER_STATEMENT:
            self.flush()

    def flush(self) -> None:
        for table, rows in (
            (Page, self._pages),
            (Passage, self._passages),
            (Entity, self._entities),
        ):
            for some in _slices(rows):
                self._session.execute(insert(table), some)
            rows.clear()


def _slices(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        yield rows[start : start + ROWS_PER_STATEMENT]


def record_ingested(
    session: Session,
    stored: StoredEvent,
    *,
    opened: DocumentOpened,
    read: DocumentRead,
    occasion: Occasion,
) -> None:
    """Settle document and job after the last page, and tell of it.

    Raises:
        NoLongerWanted: the upload was purged meanwhile; this transaction has to end.
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
            ingested_at=occasion.now,
        ),
    )
    result = session.scalar(select(Job.result).where(Job.id == stored.job_id)) or {}
    settled = session.execute(
        _of_ingest(stored)
        .values(
            status=JobStatus.COMPLETED,
            stage=JobStage.DONE,
            pages_done=read.pages_read,
            pages_total=read.pages_read,
            finished_at=occasion.now,
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
        tenant_id=occasion.tenant_id,
        source=SOURCE,
        now=occasion.now,
        traceparent=occasion.traceparent,
    )


def record_failed(
    session: Session, stored: StoredEvent, *, error: DomainError, occasion: Occasion
) -> None:
    """Settle document and job with the reason, and tell of it; once per event."""
    if not begin(session, event_id=occasion.event_id):
        return
    session.execute(
        update(Document)
        .where(Document.id == stored.document_id, Document.status == DocumentStatus.STORED)
        .values(status=DocumentStatus.FAILED, error_code=error.code, error_detail=str(error)),
    )
    settled = session.execute(
        _of_ingest(stored)
        .values(
            status=JobStatus.FAILED,
            error_code=error.code,
            error_detail=str(error),
            error_retryable=error.retryable,
            finished_at=occasion.now,
        )
        .returning(Job.id),
    )
    if settled.first() is None:
        forget(session, stored)
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
        tenant_id=occasion.tenant_id,
        source=SOURCE,
        now=occasion.now,
        traceparent=occasion.traceparent,
    )


def _of_ingest(stored: StoredEvent) -> Any:  # noqa: ANN401  # SQLAlchemy's update of one table has no short name
    return update(Job).where(
        Job.id == stored.job_id,
        Job.status == JobStatus.PROCESSING,
        Job.stage == JobStage.INGEST,
    )
