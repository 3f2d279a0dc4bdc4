"""The changes that the end of a malware scan makes, one short transaction per scan.

The document is locked first, as by the steps that read it.
"""

from datetime import timedelta
from typing import Any, Final, TypeAlias

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from pipeline.context import database_time
from pipeline.scan.errors import FileUnscannable, MalwareFound
from pipeline.steps import following, lease
from pipeline.steps.errors import StepCancelled
from pipeline.steps.lease import ClaimedStep
from schemas.errors import DomainError, ErrorCode
from schemas.events.documents import DocumentFailed, DocumentScanned, ReprocessRequested
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent
from schemas.ids import DocumentId
from schemas.lifecycle import (
    WITHHELD_FILES,
    DocumentStatus,
    JobStatus,
    RevisionState,
    ScanState,
    StepStatus,
)
from schemas.outcomes import Outcome
from schemas.settings import StepSettings
from schemas.steps import FIRST_OF_READING, StepName
from schemas.tables.documents import Document, Revision
from schemas.tables.events import emit
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from schemas.tables.uploads import Upload

SOURCE: Final = "/waybill/pipeline/scan"

FileToScan: TypeAlias = StoredEvent | ReprocessRequested
"""The event that starts the scan."""


class FileGone(DomainError):
    """The document was deleted, but not the job that scans its file."""

    code = ErrorCode.DOCUMENT_NOT_FOUND
    caused_by_client = True

    def __init__(self, document_id: DocumentId) -> None:
        super().__init__(f"document {document_id} was deleted")


def file_of(event: Envelope) -> FileToScan:
    """Return the data of an event that starts a scan."""
    if not isinstance(event.data, StoredEvent | ReprocessRequested):
        raise TypeError(f"{event.type} was routed to the task that scans files")
    return event.data


def etag_of(session: Session, file: FileToScan) -> str:
    """Return the ETag of the object that was stored and verified.

    Raises:
        StepCancelled: the document is deleted with its upload.
        FileGone: the document alone is deleted.
    """
    etag = session.scalar(select(Document.etag).where(Document.id == file.document_id))
    if etag is None:
        raise _gone(session, file)
    return etag


def declared_type_of(session: Session, file: FileToScan) -> str | None:
    """Return the media type that the client declared for a file."""
    return session.scalar(select(Upload.content_type).where(Upload.id == file.upload_id))


def waited_longer_than(session: Session, claimed: ClaimedStep, limit: timedelta) -> bool:
    """Return whether a worker claimed the step for the first time longer ago than `limit`."""
    waited = session.scalar(
        select(func.now() - Step.started_at > limit).where(
            Step.job_id == claimed.job_id, Step.name == claimed.name
        )
    )
    return bool(waited)


def record_passed(
    session: Session,
    claimed: ClaimedStep,
    file: FileToScan,
    *,
    state: ScanState,
    will_be_read: bool,
    event: Envelope,
    settings: StepSettings,
    traceparent: str | None,
) -> None:
    """Release the file, complete the step, and add the steps that read the file.

    Raises:
        StepCancelled, FileGone: see `etag_of`.
        StepCancelled: the client cancelled.
        LeaseLost: another worker took over.
    """
    document = _locked(session, file)
    changes: dict[str, Any] = {"scan_state": state, "scan_signature": None}
    if state is ScanState.CLEAN:
        changes["scanned_at"] = func.now()
    if document.scan_state in WITHHELD_FILES:
        changes |= {
            "status": DocumentStatus.READING if will_be_read else DocumentStatus.STORED,
            "outcome": None,
            "error_code": None,
            "error_detail": None,
        }
    session.execute(update(Document).where(Document.id == document.id).values(changes))
    lease.complete(session, claimed, done=0, total=None, settings=settings)
    scanned = DocumentScanned(
        document_id=file.document_id,
        upload_id=file.upload_id,
        job_id=file.job_id,
        filename=file.filename,
        malware_scan=state,
    )
    emit(
        session,
        scanned,
        tenant_id=event.tenantid,
        source=SOURCE,
        now=database_time(session),
        traceparent=traceparent,
    )
    if will_be_read:
        following.add(session, claimed, FIRST_OF_READING, event_id=event.id, settings=settings)


def record_failed(
    session: Session,
    file: FileToScan,
    *,
    error: DomainError,
    event: Envelope,
    settings: StepSettings,
    traceparent: str | None,
) -> StepStatus:
    """End the scan with an error, unless it has ended.

    A file with malware is quarantined, and what was read from it before is withdrawn. Any other error
    leaves a file that was never scanned withheld, and changes nothing of a document that is shown.

    Returns:
        How the step ended.

    Raises:
        LeaseHeld: another worker has the lease; the transaction must roll back.
        UnknownStep: the job has no such step.
    """
    document = _locked_or_none(session, file)
    ended_before = lease.fail(
        session, job_id=file.job_id, name=StepName.SCAN, error=error, settings=settings
    )
    if ended_before is not None:
        return ended_before
    if document is not None and (changes := _changes(document, error)):
        if isinstance(error, MalwareFound):
            # No client sees it any more, and a sweep deletes it.
            session.execute(
                update(Revision)
                .where(Revision.id == document.revision_id)
                .values(state=RevisionState.SUPERSEDED)
            )
        session.execute(update(Document).where(Document.id == document.id).values(changes))
    failed = DocumentFailed(
        document_id=file.document_id,
        upload_id=file.upload_id,
        job_id=file.job_id,
        filename=file.filename,
        code=error.code,
        detail=str(error),
        outcome=_outcome_of(error),
    )
    emit(
        session,
        failed,
        tenant_id=event.tenantid,
        source=SOURCE,
        now=database_time(session),
        traceparent=traceparent,
    )
    return StepStatus.FAILED


def _changes(document: Document, error: DomainError) -> dict[str, Any]:
    """Return what an error changes of a document."""
    failed = {
        "status": DocumentStatus.FAILED,
        "outcome": _outcome_of(error),
        "error_code": error.code,
        "error_detail": str(error),
    }
    if isinstance(error, MalwareFound):
        return failed | {
            "scan_state": ScanState.INFECTED,
            "scan_signature": error.signature,
            "scanned_at": func.now(),
            "revision_id": None,
            "ingested_at": None,
        }
    if document.scan_state not in {ScanState.PENDING, ScanState.UNSCANNABLE}:
        return {}
    if isinstance(error, FileUnscannable):
        return failed | {"scan_state": ScanState.UNSCANNABLE}
    return failed


def _outcome_of(error: DomainError) -> Outcome | None:
    match error:
        case MalwareFound():
            return Outcome.QUARANTINED
        case FileUnscannable():
            return Outcome.UNSCANNABLE
        case _:
            return None


def _locked(session: Session, file: FileToScan) -> Document:
    document = _locked_or_none(session, file)
    if document is None:
        raise _gone(session, file)
    return document


def _locked_or_none(session: Session, file: FileToScan) -> Document | None:
    return session.scalar(
        select(Document).where(Document.id == file.document_id).with_for_update(key_share=True)
    )


def _gone(session: Session, file: FileToScan) -> StepCancelled | FileGone:
    status = session.scalar(select(Job.status).where(Job.id == file.job_id))
    return StepCancelled() if status == JobStatus.CANCELLED else FileGone(file.document_id)
