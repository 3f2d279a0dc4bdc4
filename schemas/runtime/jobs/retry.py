"""Retries a job from the steps that failed or were cancelled.

The steps wait again, with the event that started them first; steps that are completed are not
repeated. A step keeps its checkpoint if its work can go on from there; otherwise its worker removes
what the earlier attempt left.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, assert_never

import structlog
from sqlalchemy import Update, and_, delete, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from schemas.ids import EventId, JobId
from schemas.lifecycle import (
    ACTIVE_STEPS,
    DeadLetterState,
    DocumentStatus,
    JobKind,
    ScanState,
    StagingKind,
    StepStatus,
    UploadStatus,
)
from schemas.runtime.jobs.errors import JobBusy, JobNotRetryable, JobSourceGone
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.audit import AuditEntry
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.documents import Document, FigureImage, PageImage, Revision
from schemas.tables.events import EventRecord
from schemas.tables.exports import Export
from schemas.tables.jobs import IS_OPEN, READS_AGAIN, Job
from schemas.tables.steps import Step
from schemas.tables.uploads import LOCK_OF_UPLOAD, Upload

log = structlog.stdlib.get_logger(__name__)

RETRIED: Final = frozenset({StepStatus.FAILED, StepStatus.CANCELLED})

READING: Final = frozenset(
    {
        StepName.METADATA,
        StepName.INGEST,
        StepName.INGEST_REST,
        StepName.OCR,
        StepName.TABLES,
    }
)
"""The steps that write the revision of a job."""

RESUMED: Final = frozenset(
    {StepName.OCR, StepName.TABLES, StepName.REPLAY, StepName.BULK, StepName.BATCH}
)
"""Steps that go on from their checkpoint; the others begin anew."""


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a job works on, locked.

    Attributes:
        document: the document that the job reads, or whose page it renders.
        has_revision: whether the revision that the job writes is stored.
        export: the export of the job, unless it is deleted or expired.
    """

    upload: Upload | None
    document: Document | None
    has_revision: bool
    export: Export | None


def retry_job(
    session: Session, job: Job, *, actor: str, export_ttl: timedelta, settings: StepSettings
) -> None:
    """Let the failed or cancelled steps of a job wait for workers again.

    After an error the transaction, or its savepoint, must roll back.

    Args:
        session: a transaction that has locked no row of the job.
        job: the job; not locked.
        actor: who retries, for the audit log.
        export_ttl: how long a retried export is kept.
        settings: shares of the tenants.

    Raises:
        JobNotRetryable: no step failed or was cancelled, or malware was found in the file.
        JobSourceGone: what the step reads is deleted.
        JobBusy: a worker still cleans up, or another job does the same work.
    """
    work = _locked(session, job)
    rows = session.execute(
        select(Step, func.coalesce(Step.lease_until >= func.now(), False).label("is_held"))
        .where(Step.job_id == job.id)
        .order_by(Step.ordinal)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    found = {step.name: step for step, _ in rows}
    chosen = {step.name for step in found.values() if step.status in RETRIED}
    if StepName.CLEANUP in found:
        raise JobSourceGone(job.id, reason="it is cancelled, and what it worked on is deleted")
    if not chosen:
        session.refresh(job)
        raise JobNotRetryable(job.id, reason=f"it is {job.status}")
    if work.document is not None and work.document.scan_state is ScanState.INFECTED:
        raise JobNotRetryable(job.id, reason="malware was found in its file")
    is_held = any(is_held for step, is_held in rows if step.name in chosen)
    chosen = _with_lost_steps(session, job, found=found, chosen=chosen, work=work)
    _check_source(session, job, chosen=chosen, work=work)
    if work.export is not None:
        work.export.expires_at = func.now() + export_ttl
    events = {step.event_id for step in found.values() if step.name in chosen}
    _check_events(session, job, events)
    # After the refusals that a later request would meet too.
    if is_held:
        raise JobBusy(job.id, reason="a worker is still cleaning up after it")
    try:
        with session.begin_nested():
            for name in (name for name in found if name in chosen):
                session.execute(_reset(job.id, name))
    except IntegrityError as error:
        # The index of open jobs of a document or endpoint.
        raise JobBusy(job.id, reason="another job does the same work") from error
    _settle_dead_letters(session, events, actor=actor)
    for name in (name for name in found if name in chosen):
        session.execute(steps.release(job.tenant_id, name, settings=settings))
    log.info("job.retried", job_id=str(job.id), kind=job.kind, steps=sorted(chosen))


def _locked(session: Session, job: Job) -> _Work:
    """Lock what the steps of a job change, before the steps, in the order of locks."""
    upload = document = revision_id = export = None
    if job.upload_id is not None:
        upload = session.get_one(
            Upload, job.upload_id, with_for_update=LOCK_OF_UPLOAD, populate_existing=True
        )
    if job.upload_id is not None or job.document_id is not None:
        is_its_document = (
            Document.upload_id == job.upload_id
            if job.document_id is None
            else Document.id == job.document_id
        )
        document = session.scalar(
            select(Document).where(is_its_document).with_for_update(key_share=True)
        )
        revision_id = session.scalar(
            select(Revision.id).where(Revision.job_id == job.id).with_for_update(key_share=True)
        )
    if job.kind is JobKind.EXPORT:
        export = session.scalar(
            select(Export)
            .where(
                Export.job_id == job.id,
                Export.deleted_at.is_(None),
                Export.expires_at > func.now(),
            )
            .with_for_update()
        )
    return _Work(
        upload=upload, document=document, has_revision=revision_id is not None, export=export
    )


def _with_lost_steps(
    session: Session, job: Job, *, found: dict[StepName, Step], chosen: set[StepName], work: _Work
) -> set[StepName]:
    """Return the steps to repeat, with those whose result was in a revision that is deleted.

    A sweep deletes a revision some time after the end of its job. The reading then begins anew: its
    first step adds the steps after it again.
    """
    if work.has_revision or not chosen & READING:
        return chosen
    later = {StepName.INGEST_REST, StepName.OCR, StepName.TABLES, StepName.INDEX}
    session.execute(delete(Step).where(Step.job_id == job.id, Step.name.in_(later)))
    first = {
        name
        for name in (StepName.METADATA, StepName.INGEST)
        if name in found and found[name].status not in ACTIVE_STEPS
    }
    for name in later:
        found.pop(name, None)
    return (chosen - later) | first


def _check_source(session: Session, job: Job, *, chosen: set[StepName], work: _Work) -> None:
    """Check that what the steps read is there, and mark it as being worked on.

    Raises:
        JobSourceGone, JobBusy: see `retry_job`.
    """
    if StepName.TRANSFER in chosen:
        _finalize_again(session, job, work.upload)
    elif chosen & (READING | {StepName.SCAN}):
        _read_again(session, job, work.document)
    match job.kind:
        case JobKind.RENDER:
            is_wanted = or_(
                *(exists().where(image.job_id == job.id) for image in (PageImage, FigureImage))
            )
            if not session.scalar(select(is_wanted)):
                raise JobSourceGone(job.id, reason="its page has another image, or is deleted")
        case JobKind.EXPORT:
            if work.export is None:
                raise JobSourceGone(job.id, reason="its export is deleted or expired")
        case JobKind.REPLAY:
            other = select(Job.id).where(Job.webhook_id == job.webhook_id, IS_OPEN)
            if (open_job := session.scalar(other)) is not None:
                raise JobBusy(job.id, reason=f"job {open_job} replays the same endpoint")
        case JobKind.UPLOAD | JobKind.REPROCESS | JobKind.BULK | JobKind.BATCH:
            pass
        case _:
            assert_never(job.kind)


def _finalize_again(session: Session, job: Job, upload: Upload | None) -> None:
    """Let the upload of a failed transfer be finalized again.

    The failure deletes staged bytes; a referenced object belongs to the client and stays.
    """
    if upload is None or upload.staging is not StagingKind.REFERENCE:
        raise JobSourceGone(
            job.id, reason="the staged bytes were deleted with the failure; upload the file again"
        )
    session.execute(
        update(Upload)
        .where(Upload.id == upload.id, Upload.status == UploadStatus.FAILED)
        # The worker measures the object again, and checks it against the quotas.
        .values(status=UploadStatus.FINALIZED, size=0)
    )


def _read_again(session: Session, job: Job, document: Document | None) -> None:
    """Show a document that failed as being read."""
    if document is None:
        raise JobSourceGone(job.id, reason="its document is deleted")
    other = select(Job.id).where(
        or_(Job.id == document.job_id, and_(Job.document_id == document.id, READS_AGAIN)),
        Job.id != job.id,
        IS_OPEN,
    )
    if (open_job := session.scalar(other)) is not None:
        raise JobBusy(job.id, reason=f"job {open_job} reads the document")
    if job.kind is JobKind.UPLOAD:
        session.execute(
            update(Document)
            .where(
                Document.id == document.id,
                Document.status == DocumentStatus.FAILED,
                Document.revision_id.is_(None),
            )
            .values(status=DocumentStatus.READING, outcome=None, error_code=None, error_detail=None)
        )


def _check_events(session: Session, job: Job, events: Iterable[EventId | None]) -> None:
    """Check that the events of the steps can be published again.

    Raises:
        JobSourceGone: an event is no longer stored.
    """
    wanted = set(events)
    known = [event_id for event_id in wanted if event_id is not None]
    stored = session.scalars(select(EventRecord.id).where(EventRecord.id.in_(known))).all()
    if wanted != set(stored):
        raise JobSourceGone(job.id, reason="its event is no longer stored")


def _reset(job_id: JobId, name: StepName) -> Update:
    begins_anew: dict[str, Any] = (
        {} if name in RESUMED else {"done": 0, "total": None, "checkpoint": None}
    )
    return (
        update(Step)
        .where(Step.job_id == job_id, Step.name == name)
        .values(
            {
                "status": StepStatus.WAITING,
                "done_at_claim": Step.done if name in RESUMED else 0,
                "attempts": 0,
                "releases": 0,
                "lease_owner": None,
                "lease_until": None,
                "overdue_at": None,
                "finished_at": None,
                "error_code": None,
                "error_detail": None,
                "error_retryable": None,
            }
            | begins_anew
        )
    )


def _settle_dead_letters(session: Session, events: Iterable[EventId | None], *, actor: str) -> None:
    """Settle the dead letters of the events: the watchdog leaves a step alone whose event waits there."""
    letters = session.scalars(
        update(DeadLetter)
        .where(DeadLetter.event_id.in_(set(events)), DeadLetter.state == DeadLetterState.WAITING)
        .values(state=DeadLetterState.REPLAYED, settled_at=func.now())
        .returning(DeadLetter.id)
    ).all()
    session.add_all(
        AuditEntry(
            actor=actor,
            action="dead_letter.replayed",
            target=f"dead_letter/{letter_id}",
            detail={"reason": "the client retried the job"},
        )
        for letter_id in letters
    )
    session.flush()
