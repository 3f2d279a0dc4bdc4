"""The changes of a reading to document, revision, step and job, one short transaction per change.

No transaction is open while a document is downloaded, read or recognised. Each function runs in a
transaction of its own and locks rows in the order document, revision, step, job. A repeated call
changes nothing: each is conditional on the lease of the caller, or finds what it did before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    bindparam,
    case,
    delete,
    exists,
    func,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from pipeline.context import database_time
from pipeline.ingest import after_publish, errors, outcome, passage_rows, summary
from pipeline.ingest.after_publish import NOTHING, Following, Plan
from pipeline.ingest.applied_event import SOURCE, EventContext
from pipeline.ingest.errors import DocumentDuplicate, DocumentError
from pipeline.ingest.extractors import registry
from pipeline.ingest.extractors.extractor import Structure
from pipeline.ingest.frames import DocumentRead
from pipeline.ingest.outcome import Cut, Next, PageFacts, Result
from pipeline.steps import lease
from pipeline.steps.errors import StepCancelled
from pipeline.steps.lease import ClaimedStep
from schemas.api.jobs import DocumentSummary
from schemas.errors import DomainError, ErrorCode
from schemas.events.documents import (
    DocumentFailed,
    IngestedEvent,
    RenderRequested,
    ReprocessRequested,
    TablesRequested,
)
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent
from schemas.ids import DocumentId, JobId, RevisionId, TenantId, uuid7
from schemas.lifecycle import (
    DocumentStatus,
    JobKind,
    JobStatus,
    PageStatus,
    RevisionState,
    StepStatus,
)
from schemas.outcomes import Outcome
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.base import table_of
from schemas.tables.documents import Document, Entity, Page, Revision
from schemas.tables.events import emit_at_once
from schemas.tables.jobs import Job
from schemas.tables.tenants import Tenant

_DOCUMENTS: Final = table_of(Document)
_REVISIONS: Final = table_of(Revision)
_JOBS: Final = table_of(Job)
_TENANTS: Final = table_of(Tenant)

# Built once: building a statement costs as much of the processor as executing it.
_LOCK: Final = (
    select(_DOCUMENTS.c.id)
    .where(_DOCUMENTS.c.id == bindparam("document_id"))
    .with_for_update(read=True, key_share=True)
)
_LOCK_FOR_CHANGES: Final = _LOCK.with_for_update(key_share=True)
_REVISION_OF_JOB: Final[Select[RevisionId]] = select(_REVISIONS.c.id).where(
    _REVISIONS.c.job_id == bindparam("job_id")
)
_REFUSES_DUPLICATES: Final = select(_TENANTS.c.refuses_duplicates).where(
    _TENANTS.c.id == bindparam("tenant_id")
)
_DUPLICATE: Final = (
    select(
        _REVISIONS.c.id,
        _REVISIONS.c.document_id,
        _DOCUMENTS.c.filename,
        _REVISIONS.c.page_count,
        _REVISIONS.c.language,
        _REVISIONS.c.language_confidence,
        _REVISIONS.c.key_phrases,
        _REVISIONS.c.warnings,
    )
    .join(_DOCUMENTS, _DOCUMENTS.c.revision_id == _REVISIONS.c.id)
    .where(
        _DOCUMENTS.c.tenant_id == bindparam("tenant_id"),
        _DOCUMENTS.c.sha256 == bindparam("sha256"),
        _DOCUMENTS.c.id != bindparam("document_id"),
        _DOCUMENTS.c.content_type == bindparam("content_type"),
        _REVISIONS.c.state == RevisionState.PUBLISHED,
        _REVISIONS.c.pipeline_version == bindparam("pipeline_version"),
        _REVISIONS.c.outcome.in_((Outcome.COMPLETE, Outcome.NO_TEXT)),
    )
    .order_by(_REVISIONS.c.published_at)
    .limit(1)
)
_CHANGE_REVISION: Final = update(_REVISIONS).where(_REVISIONS.c.id == bindparam("revision"))
"""Changes the columns that are among its parameters."""
_PUBLISH: Final = _CHANGE_REVISION.values(published_at=func.now())
_SHOW: Final = (
    update(_DOCUMENTS)
    .where(_DOCUMENTS.c.id == bindparam("document"))
    .values(error_code=None, error_detail=None, ingested_at=func.now())
)
_ADD_RESULT: Final = (
    update(_JOBS)
    .where(_JOBS.c.id == bindparam("job"))
    .values(
        result=func.coalesce(_JOBS.c.result, text("'{}'::jsonb")).op("||")(
            bindparam("facts", type_=JSONB)
        )
    )
)

DocumentToRead: TypeAlias = StoredEvent | ReprocessRequested
"""The event that starts the steps that read a document."""

StoredDocument: TypeAlias = DocumentToRead | TablesRequested | RenderRequested
"""An event that says where the file of a document is."""

UNREADABLE_SO_FAR: Final = frozenset({DocumentStatus.READING, DocumentStatus.FAILED})
"""Statuses of a document that is to be read, and of which no reading has succeeded.

A document whose type is not read stays `stored` if a client asks in vain to read it.
"""


class DocumentGone(DomainError):
    """The document was deleted, but not the job that reads it."""

    code = ErrorCode.DOCUMENT_NOT_FOUND
    caused_by_client = True

    def __init__(self, document_id: DocumentId) -> None:
        super().__init__(f"document {document_id} was deleted")


class RevisionReplaced(DomainError):
    """The revision that a step works on was deleted; the document shows another one."""

    code = ErrorCode.NOT_FOUND
    caused_by_client = True

    def __init__(self) -> None:
        super().__init__("the document was read again meanwhile; ask again")


@dataclass(frozen=True, kw_only=True)
class EndOfReading:
    """How a step that reads pages ended.

    Attributes:
        page_count: pages of the document, including those beyond a limit; None if the time of the
            step did not suffice to open it.
        read: what the reader sent last.
        has_more_pages: the time of the step is spent; another step reads the other pages.
        reused_from: the revision whose pages were copied.
    """

    page_count: int | None
    read: DocumentRead
    has_more_pages: bool = False
    reused_from: RevisionId | None = None


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A published reading of the same bytes by the same version of the pipeline."""

    document_id: DocumentId
    revision_id: RevisionId
    page_count: int
    read: DocumentRead


def document_of(event: Envelope) -> DocumentToRead:
    """Return the data of an event that starts the reading of a document."""
    if not isinstance(event.data, StoredEvent | ReprocessRequested):
        raise TypeError(f"{event.type} was routed to a task that reads documents")
    return event.data


def lock_document(session: Session, document: StoredDocument, *, is_changed: bool = False) -> None:
    """Lock the document against deletion until this transaction ends.

    Args:
        session: a transaction that has locked no step yet.
        document: the document.
        is_changed: exclude every other change of the document too.

    Raises:
        StepCancelled: the document is deleted with its upload.
        DocumentGone: the document alone is deleted.
    """
    lock = _LOCK_FOR_CHANGES if is_changed else _LOCK
    held = session.scalar(lock, {"document_id": document.document_id})
    if held is None:
        status = session.scalar(select(Job.status).where(Job.id == document.job_id))
        raise StepCancelled if status == JobStatus.CANCELLED else DocumentGone(document.document_id)


def lock_if_there(session: Session, document: StoredDocument) -> None:
    """Lock a document for changes; do nothing if it is deleted."""
    session.execute(_LOCK_FOR_CHANGES, {"document_id": document.document_id})


def begin_revision(
    session: Session,
    document: DocumentToRead,
    *,
    tenant_id: TenantId,
    pipeline_version: str,
) -> RevisionId:
    """Return the revision that the job writes, which the first caller creates.

    Raises:
        StepCancelled, DocumentGone: see `lock_document`.
    """
    own = {"job_id": document.job_id}
    found = session.scalar(_REVISION_OF_JOB, own)
    if found is not None:
        return found
    lock_document(session, document, is_changed=True)
    # Another step of the job may have created it before this one had the lock.
    found = session.scalar(_REVISION_OF_JOB, own)
    if found is not None:
        return found
    last = session.scalar(
        select(func.max(Revision.number)).where(Revision.document_id == document.document_id)
    )
    revision = Revision(
        id=RevisionId(uuid7(database_time(session))),
        document_id=document.document_id,
        tenant_id=tenant_id,
        job_id=document.job_id,
        number=(last or 0) + 1,
        pipeline_version=pipeline_version,
        state=RevisionState.WRITING,
    )
    session.add(revision)
    session.flush()
    return revision.id


def find_duplicate(
    session: Session, document: DocumentToRead, *, tenant_id: TenantId, pipeline_version: str
) -> Duplicate | None:
    """Return a reading of the same bytes that can be copied, the oldest of them.

    Only a whole reading is copied: the rest of another one may be readable now. A document is
    read again on request, so a request finds no duplicate.

    Raises:
        DocumentDuplicate: the tenant refuses duplicates, and an earlier document has the bytes.
    """
    if isinstance(document, ReprocessRequested):
        return None
    _check_duplicates_allowed(session, document, tenant_id=tenant_id)
    revision = session.execute(
        _DUPLICATE,
        {
            "tenant_id": tenant_id,
            "sha256": document.sha256,
            "document_id": document.document_id,
            "content_type": document.content_type,
            "pipeline_version": pipeline_version,
        },
    ).one_or_none()
    if revision is None or revision.page_count is None:
        return None
    # The name decides how a file of an unknown type is read.
    if _media_type_of(document, revision.filename) != _media_type_of(document, document.filename):
        return None
    return Duplicate(
        document_id=revision.document_id,
        revision_id=revision.id,
        page_count=revision.page_count,
        read=DocumentRead(
            language=revision.language,
            language_confidence=revision.language_confidence,
            key_phrases=tuple(revision.key_phrases),
            warnings=revision.warnings,
        ),
    )


def _media_type_of(document: DocumentToRead, filename: str) -> str:
    return registry.media_type_of(document.content_type, filename=filename)


def _check_duplicates_allowed(
    session: Session, document: DocumentToRead, *, tenant_id: TenantId
) -> None:
    """Refuse the bytes of an earlier document that could be read, if the tenant refuses duplicates.

    Of two documents at once only the later one is refused.

    Raises:
        DocumentDuplicate: names the earlier document.
    """
    if not session.scalar(_REFUSES_DUPLICATES, {"tenant_id": tenant_id}):
        return
    own = aliased(Document)
    earlier = session.scalar(
        select(Document.id)
        .join(own, own.id == document.document_id)
        .where(
            Document.tenant_id == tenant_id,
            Document.sha256 == document.sha256,
            Document.status != DocumentStatus.FAILED,
            tuple_(Document.created_at, Document.id) < tuple_(own.created_at, own.id),
        )
        .order_by(Document.created_at)
        .limit(1)
    )
    if earlier is not None:
        raise DocumentDuplicate(f"It is document {earlier}.")


def record_structure(
    session: Session,
    claimed: ClaimedStep,
    document: DocumentToRead,
    revision_id: RevisionId,
    *,
    structure: Structure,
    page_count: int,
    language: str | None,
    language_confidence: float | None,
    has_thumbnail: bool,
    settings: StepSettings,
) -> None:
    """Complete the step `metadata` with what it found.

    Raises:
        StepCancelled, DocumentGone: see `lock_document`.
        LeaseLost: another worker took over.
    """
    # Excludes the end of the reading, which locks the job before the revision.
    lock_document(session, document, is_changed=True)
    facts = msgspec.to_builtins(structure)
    is_writing = Revision.state == RevisionState.WRITING
    session.execute(
        update(Revision)
        .where(Revision.id == revision_id)
        .values(
            title=structure.metadata.title,
            document_metadata=facts["metadata"],
            outline=facts["outline"],
            attachments=facts["attachments"],
            page_labels=facts["page_labels"],
            structure_is_cut=structure.is_cut,
            has_thumbnail=has_thumbnail,
            # The reading of all pages may have ended before, and is more exact, also if it found
            # no language.
            page_count=func.coalesce(Revision.page_count, page_count),
            language=case(
                (is_writing, func.coalesce(Revision.language, language)), else_=Revision.language
            ),
            language_confidence=case(
                (is_writing, func.coalesce(Revision.language_confidence, language_confidence)),
                else_=Revision.language_confidence,
            ),
        )
    )
    lease.complete(session, claimed, done=0, total=None, settings=settings)
    if structure.metadata.title is not None:
        # The result of the job is written if the reading of all pages has ended before.
        session.execute(_ADD_TITLE, {"job": document.job_id, "title": structure.metadata.title})


def record_structure_failed(
    session: Session, document: DocumentToRead, *, error: DomainError, settings: StepSettings
) -> StepStatus:
    """Complete the step `metadata` with an error: the job goes on without title and outline.

    Returns:
        How the step ended.

    Raises:
        LeaseHeld: another worker has the lease; the transaction must roll back.
        UnknownStep: the job has no such step.
    """
    ended_before = lease.fail(
        session,
        job_id=document.job_id,
        name=StepName.METADATA,
        error=error,
        settings=settings,
        status=StepStatus.COMPLETED,
    )
    return ended_before or StepStatus.COMPLETED


def end_reading(
    session: Session,
    claimed: ClaimedStep,
    document: DocumentToRead,
    revision_id: RevisionId,
    *,
    end: EndOfReading,
    is_ocr_available: Callable[[], bool],
    settings: StepSettings,
    event_context: EventContext,
    following: Following = NOTHING,
) -> Next:
    """End a step that read pages: publish the revision, or add the step that goes on.

    Every page up to `claimed.done` is written.

    Args:
        session: of a transaction that has locked the document for changes, before any step.
        claimed: the step `ingest` or `ingest_rest`, as `write_pages` returned it last.
        document: the document.
        revision_id: its revision.
        end: how the step ended.
        is_ocr_available: whether a worker recognises pages; called if a page needs OCR.
        settings: shares of the tenants.
        event_context: the event that started the step.
        following: the steps that may follow the publication.

    Raises:
        DocumentError: no page can be read; the transaction must roll back.
        StepCancelled: the client cancelled.
        LeaseLost: another worker took over.
    """
    counts = _counts_of(session, revision_id)
    cut = _cut_of(end.read)
    facts: dict[str, Any] = {
        **({} if end.page_count is None else {"page_count": end.page_count}),
        "warnings": end.read.warnings,
        "key_phrases": list(end.read.key_phrases),
        "reused_from": end.reused_from,
        **_language_of(end.read, counts),
    }
    goes_on = outcome.next_of(
        has_more_pages=end.has_more_pages,
        pages_needing_ocr=counts.needs_ocr,
        is_ocr_available=counts.needs_ocr > 0 and is_ocr_available(),
    )
    if goes_on is Next.PUBLISH:
        planned = after_publish.plan(session, document, following=following)
        published = _publish(
            session, document, revision_id, facts=facts, counts=counts, cut=cut, planned=planned
        )
        lease.complete(session, claimed, done=claimed.done, total=claimed.done, settings=settings)
        _announce(session, document, published, settings=settings, event_context=event_context)
        return goes_on
    if cut is not None:
        # Kept for the end of OCR.
        facts["reasons"] = msgspec.to_builtins(
            [outcome.reason_of(cut, pages=counts.pages, page_count=end.page_count or counts.pages)]
        )
    session.execute(_CHANGE_REVISION, {"revision": revision_id} | facts)
    if goes_on is Next.RECOGNISE:
        _show_early(session, document, revision_id)
        lease.complete(session, claimed, done=claimed.done, total=claimed.done, settings=settings)
        _add_step(
            session,
            claimed,
            StepName.OCR,
            total=counts.needs_ocr,
            settings=settings,
            event_context=event_context,
        )
    else:
        lease.complete(session, claimed, done=claimed.done, total=claimed.total, settings=settings)
        _add_step(
            session,
            claimed,
            StepName.INGEST_REST,
            total=claimed.total,
            done=claimed.done,
            checkpoint=claimed.checkpoint,
            settings=settings,
            event_context=event_context,
        )
    return goes_on


def pages_to_recognise(
    session: Session, claimed: ClaimedStep, revision_id: RevisionId
) -> Sequence[int]:
    """Return the numbers of the pages that OCR has not tried yet, in order."""
    last_page = (claimed.checkpoint or {}).get("last_page", 0)
    return session.scalars(
        select(Page.number)
        .where(
            Page.revision_id == revision_id,
            Page.status == PageStatus.NEEDS_OCR,
            Page.number > last_page,
        )
        .order_by(Page.number)
    ).all()


def end_recognition(
    session: Session,
    claimed: ClaimedStep,
    document: DocumentToRead,
    revision_id: RevisionId,
    *,
    read: DocumentRead | None,
    settings: StepSettings,
    event_context: EventContext,
    following: Following = NOTHING,
) -> None:
    """End the step `ocr`, and publish the revision.

    Args:
        session: a new transaction.
        claimed: the step, as `write_recognised_pages` returned it last.
        document: the document.
        revision_id: its revision.
        read: language and key phrases of all pages, if they were found again.
        settings: shares of the tenants.
        event_context: the event that started the step.
        following: the steps that may follow the publication.

    Raises:
        StepCancelled, DocumentGone: see `lock_document`.
        LeaseLost: another worker took over.
    """
    lock_document(session, document, is_changed=True)
    published = _publish_recognised(session, document, revision_id, read=read, following=following)
    lease.complete(session, claimed, done=claimed.done, total=claimed.total, settings=settings)
    _announce(session, document, published, settings=settings, event_context=event_context)


def record_failed(
    session: Session,
    document: DocumentToRead,
    *,
    name: StepName,
    error: DomainError,
    settings: StepSettings,
    event_context: EventContext,
    following: Following = NOTHING,
) -> StepStatus:
    """End a step that reads or recognises pages with an error, unless the step has ended.

    A failed reading fails the job; and the document, if it is to be read and no earlier reading
    succeeded. The step `ocr` instead completes with its error, and the pages that are read are
    published.

    Returns:
        How the step ended.

    Raises:
        LeaseHeld: another worker has the lease; the transaction must roll back.
        UnknownStep: the job has no such step.
    """
    lock_if_there(session, document)
    revision_id = (
        session.scalar(select(Revision.id).where(Revision.job_id == document.job_id))
        if name is StepName.OCR
        else None
    )
    ended_before = lease.fail(
        session,
        job_id=document.job_id,
        name=name,
        error=error,
        settings=settings,
        status=StepStatus.FAILED if revision_id is None else StepStatus.COMPLETED,
    )
    if ended_before is not None:
        return ended_before
    if revision_id is not None:
        published = _publish_recognised(
            session, document, revision_id, read=None, following=following
        )
        _announce(session, document, published, settings=settings, event_context=event_context)
        return StepStatus.COMPLETED
    session.execute(
        update(Document)
        .where(Document.id == document.document_id, Document.status.in_(UNREADABLE_SO_FAR))
        .values(
            status=DocumentStatus.FAILED,
            outcome=errors.outcome_of(error),
            error_code=error.code,
            error_detail=str(error),
        ),
    )
    _emit(
        session,
        DocumentFailed(
            document_id=document.document_id,
            upload_id=document.upload_id,
            job_id=document.job_id,
            filename=document.filename,
            code=error.code,
            detail=str(error),
            outcome=errors.outcome_of(error),
        ),
        event_context,
    )
    return StepStatus.FAILED


def revision_of_job(session: Session, job_id: JobId) -> RevisionId | None:
    """Return the revision that a job writes; None if there is none, or it is deleted."""
    return session.scalar(_REVISION_OF_JOB, {"job_id": job_id})


def add_to_result(session: Session, job_id: JobId, facts: Mapping[str, Any]) -> None:
    """Add facts to the result of a job, after the end of its step."""
    session.execute(_ADD_RESULT, {"job": job_id, "facts": dict(facts)})


def delete_purged(session: Session, document: StoredDocument) -> None:
    """Delete the document of a purged upload whose purge did not wait for the reader's lock."""
    is_purged = exists().where(
        Job.id == document.job_id,
        Job.status == JobStatus.CANCELLED,
        Job.kind == JobKind.UPLOAD,
    )
    session.execute(delete(Document).where(Document.id == document.document_id, is_purged))


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """What is written of a revision; `language` is the most frequent one of its pages."""

    pages: int
    read: int
    ocr: int
    needs_ocr: int
    failed: int
    no_text: int
    incomplete: int
    passages: int
    entities: int
    language: str | None
    language_confidence: float | None


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A published revision, as its event and the result of its job show it."""

    number: int
    is_superseded: bool
    page_count: int
    result: Result
    counts: _Counts
    language: str | None
    language_confidence: float | None
    title: str | None
    first_lines: list[str]
    planned: Plan


def _pages_with(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)


# Built once: building costs as much of the processor as executing.
_COUNTS: Final = select(
    func.count().label("pages"),
    _pages_with(Page.status == PageStatus.READ).label("read"),
    _pages_with(Page.status == PageStatus.OCR).label("ocr"),
    _pages_with(Page.status == PageStatus.NEEDS_OCR).label("needs_ocr"),
    _pages_with(Page.status == PageStatus.FAILED).label("failed"),
    _pages_with(Page.outcome == Outcome.NO_TEXT).label("no_text"),
    _pages_with(Page.outcome.not_in(outcome.GOOD)).label("incomplete"),
    (func.coalesce(func.sum(func.cardinality(Page.sentences)), 0) / 2).label("passages"),
    select(func.count())
    .where(Entity.revision_id == bindparam("revision_id"))
    .scalar_subquery()
    .label("entities"),
    func.mode().within_group(Page.language).label("language"),
    func.avg(Page.language_confidence).label("language_confidence"),
).where(Page.revision_id == bindparam("revision_id"))

_SHOWN: Final = aliased(Revision)
_NUMBERS: Final = (
    select(
        Revision.number,
        Revision.page_count,
        Revision.title,
        _SHOWN.id.label("shown_id"),
        _SHOWN.state.label("shown_state"),
        _SHOWN.number.label("shown_number"),
    )
    .join(Document, Document.id == Revision.document_id)
    .outerjoin(_SHOWN, _SHOWN.id == Document.revision_id)
    .where(Revision.id == bindparam("revision_id"))
)

_FIRST_TEXT: Final = (
    select(func.left(Page.text, summary.CHARACTERS))
    .where(
        Page.revision_id == bindparam("revision_id"),
        Page.number <= summary.PAGES,
        Page.text != "",
    )
    .order_by(Page.number)
    .limit(1)
)
_ADD_TITLE: Final = (
    update(_JOBS)
    .where(_JOBS.c.id == bindparam("job"), _JOBS.c.result.has_key("summary"))
    .values(
        result=func.jsonb_set(
            _JOBS.c.result,
            text("'{summary,title}'"),
            func.to_jsonb(bindparam("title", type_=Text())),
        )
    )
)


def _counts_of(session: Session, revision_id: RevisionId) -> _Counts:
    row = session.execute(_COUNTS, {"revision_id": revision_id}).one()
    return _Counts(**(row._asdict() | {"passages": int(row.passages)}))


def _language_of(read: DocumentRead | None, counts: _Counts) -> dict[str, Any]:
    """Return the language that the reader found, or that of most pages if its end is missing."""
    found = counts if read is None or read.language is None else read
    return {"language": found.language, "language_confidence": found.language_confidence}


def _cut_of(read: DocumentRead) -> Cut | None:
    return None if read.cut is None else Cut(outcome=read.cut, reason=read.cut_reason)


def _publish_recognised(
    session: Session,
    document: DocumentToRead,
    revision_id: RevisionId,
    *,
    read: DocumentRead | None,
    following: Following,
) -> _Published:
    counts = _counts_of(session, revision_id)
    facts = _language_of(read, counts)
    if read is not None:
        facts["key_phrases"] = list(read.key_phrases)
    reasons = session.scalar(select(Revision.reasons).where(Revision.id == revision_id))
    # The end of the reading has left the reason of its cut.
    cuts = [Cut(outcome=Outcome(each["outcome"]), reason=each["reason"]) for each in reasons or ()]
    return _publish(
        session,
        document,
        revision_id,
        facts=facts,
        counts=counts,
        cut=cuts[0] if cuts else None,
        planned=after_publish.plan(session, document, following=following),
    )


def _publish(
    session: Session,
    document: DocumentToRead,
    revision_id: RevisionId,
    *,
    facts: dict[str, Any],
    counts: _Counts,
    cut: Cut | None,
    planned: Plan,
) -> _Published:
    """Publish a revision of a locked document, unless a newer one is published.

    Raises:
        DocumentError: no page can be read.
    """
    revision = session.execute(_NUMBERS, {"revision_id": revision_id}).one()
    page_count = facts.get("page_count", revision.page_count) or counts.pages
    result = outcome.result_of(
        page_count=page_count,
        pages=counts.pages,
        pages_without_text=counts.no_text,
        incomplete=_incomplete(session, revision_id) if counts.incomplete else (),
        cut=cut,
    )
    if result.meaning.code is not None:
        raise DocumentError(
            result.reasons[0].reason if result.reasons else "", outcome=result.outcome
        )
    is_superseded = (
        revision.shown_state is RevisionState.PUBLISHED and revision.shown_number > revision.number
    )
    session.execute(
        _PUBLISH,
        facts
        | {
            "revision": revision_id,
            "state": RevisionState.SUPERSEDED if is_superseded else RevisionState.PUBLISHED,
            "outcome": result.outcome,
            "reasons": msgspec.to_builtins(result.reasons),
            "truncated": result.truncated,
            "pages_read": counts.read,
            "pages_ocr": counts.ocr,
            "pages_failed": counts.failed,
            "pages_needs_ocr": counts.needs_ocr,
            "pages_no_text": counts.no_text,
            "passages": counts.passages,
            "entities": counts.entities,
            "tables_state": planned.tables_state,
            "search": planned.search,
        },
    )
    if not is_superseded:
        if revision.shown_id not in {None, revision_id}:
            if StepName.TABLES in planned.chain:
                passage_rows.copy_of_tables(
                    session, revision_id=revision_id, shown=revision.shown_id
                )
            session.execute(
                _CHANGE_REVISION,
                {"revision": revision.shown_id, "state": RevisionState.SUPERSEDED},
            )
        session.execute(
            _SHOW,
            {
                "document": document.document_id,
                "revision_id": revision_id,
                "status": result.meaning.document_status,
                "outcome": result.outcome,
            },
        )
    return _Published(
        number=revision.number,
        is_superseded=is_superseded,
        page_count=page_count,
        result=result,
        counts=counts,
        language=facts["language"],
        language_confidence=facts["language_confidence"],
        title=revision.title,
        first_lines=summary.first_lines_of(
            session.scalar(_FIRST_TEXT, {"revision_id": revision_id}) or ""
        ),
        planned=planned,
    )


def _show_early(session: Session, document: DocumentToRead, revision_id: RevisionId) -> None:
    """Show the pages that are read before OCR ends, if clients see no other revision."""
    session.execute(
        update(Document)
        .where(Document.id == document.document_id, Document.revision_id.is_(None))
        .values(
            revision_id=revision_id,
            status=DocumentStatus.READING,
            outcome=None,
            error_code=None,
            error_detail=None,
        )
    )


def _incomplete(session: Session, revision_id: RevisionId) -> Sequence[PageFacts]:
    return [
        PageFacts(number=page.number, status=page.status, outcome=page.outcome, reason=page.reason)
        for page in session.execute(
            select(Page.number, Page.status, Page.outcome, Page.reason)
            .where(Page.revision_id == revision_id, Page.outcome.not_in(outcome.GOOD))
            .order_by(Page.number)
        )
    ]


def _announce(
    session: Session,
    document: DocumentToRead,
    published: _Published,
    *,
    settings: StepSettings,
    event_context: EventContext,
) -> None:
    """Write the result of the job, whose step has ended, emit the event, and add the next step."""
    counts, result = published.counts, published.result
    facts = {
        "outcome": result.outcome,
        "reasons": msgspec.to_builtins(result.reasons),
        "revision": published.number,
        "is_superseded": published.is_superseded,
        "pages": published.page_count,
        "pages_read": counts.read,
        "pages_ocr": counts.ocr,
        "pages_failed": counts.failed,
        "pages_needs_ocr": counts.needs_ocr,
        "passages": counts.passages,
        "entities": counts.entities,
        "language": published.language,
        "language_confidence": published.language_confidence,
        "truncated": sorted(
            {
                reason.outcome
                for reason in result.reasons
                if reason.outcome in outcome.LIMITS_OF_TEXT
            }
        ),
        "summary": msgspec.to_builtins(
            DocumentSummary(
                title=published.title,
                language=published.language,
                first_lines=published.first_lines,
                pages=published.page_count,
                sentences=counts.passages,
                entities=counts.entities,
                missing=summary.missing_of(result.reasons),
            )
        ),
    }
    session.execute(
        _ADD_RESULT,
        {
            "job": document.job_id,
            "facts": {"document_id": str(document.document_id)} | facts,
        },
    )
    _emit(
        session,
        IngestedEvent(
            document_id=document.document_id,
            upload_id=document.upload_id,
            job_id=document.job_id,
            filename=document.filename,
            sha256=document.sha256,
            pages=published.page_count,
            passages=counts.passages,
            entities=counts.entities,
            language=published.language,
            language_confidence=published.language_confidence,
            truncated=result.truncated,
            revision=published.number,
            is_superseded=published.is_superseded,
            outcome=result.outcome,
            reasons=result.reasons,
            pages_read=counts.read,
            pages_ocr=counts.ocr,
            pages_failed=counts.failed,
            pages_needs_ocr=counts.needs_ocr,
        ),
        event_context,
    )
    # Clients see a newer revision already.
    if not published.is_superseded:
        after_publish.add_next(
            session,
            document,
            published.planned,
            after=None,
            settings=settings,
            event_context=event_context,
        )


def _emit(
    session: Session, event: IngestedEvent | DocumentFailed, event_context: EventContext
) -> None:
    emit_at_once(
        session,
        event,
        tenant_id=event_context.tenant_id,
        source=SOURCE,
        now=event_context.now,
        traceparent=event_context.traceparent,
    )


def _add_step(
    session: Session,
    claimed: ClaimedStep,
    name: StepName,
    *,
    total: int | None,
    settings: StepSettings,
    event_context: EventContext,
    done: int = 0,
    checkpoint: Mapping[str, Any] | None = None,
) -> None:
    """Add the step that goes on after the claimed one, started by the same event."""
    step = steps.add_step(
        session,
        name,
        job_id=claimed.job_id,
        tenant_id=claimed.tenant_id,
        priority=claimed.priority,
        event_id=event_context.event_id,
        total=total,
    )
    step.done = done
    step.checkpoint = None if checkpoint is None else dict(checkpoint)
    session.flush()
    session.execute(steps.release(claimed.tenant_id, name, settings=settings))
