"""Cancels jobs, and the uploads that they belong to."""

from collections.abc import Sequence
from enum import Enum, auto

import structlog
from sqlalchemy import delete, func, null, select, union_all, update
from sqlalchemy.orm import Session

from schemas.events.uploads import UploadCancelled
from schemas.ids import EventId, JobId, UploadId
from schemas.lifecycle import (
    ACTIVE_STEPS,
    CANCELLABLE_UPLOADS,
    SETTLED_JOBS,
    JobStatus,
    TablesState,
    UploadStatus,
)
from schemas.runtime.jobs.cancel_batch import cancel_batch
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.batches import Batch
from schemas.tables.documents import Document, FigureImage, PageImage, Revision
from schemas.tables.events import emit
from schemas.tables.jobs import IS_OPEN, READS_AGAIN, Job
from schemas.tables.passages import without_table
from schemas.tables.steps import Step
from schemas.tables.uploads import LOCK_OF_UPLOAD, Chunk, Upload

log = structlog.stdlib.get_logger(__name__)


class Extent(Enum):
    """How far an upload may have come to be cancelled."""

    UNSTORED = auto()  # open, or finalized and not stored
    UNFINISHED = auto()  # its job has not ended; what is stored is deleted
    ANY = auto()  # also stored, read, or failed in reading: a purge


def cancel_job(session: Session, job: Job, *, source: str, settings: StepSettings) -> bool:
    """Cancel a job in whatever step it is; a worker notices at its next heartbeat.

    An upload is cancelled with its job: the step `cleanup` deletes what is staged and stored. The
    step `cleanup` of a batch cancels its lines. The other kinds keep what they have done: the
    deliveries of a replay, the document of a reprocessing.

    Args:
        session: a transaction that has locked no row of the job.
        job: the job; not locked.
        source: the component that cancels, for the event.
        settings: shares of the tenants.

    Returns:
        Whether the job is cancelled, by this call or an earlier one; if not, the transaction must
        roll back.
    """
    upload = None
    if job.upload_id is not None:
        upload = session.get_one(
            Upload, job.upload_id, with_for_update=LOCK_OF_UPLOAD, populate_existing=True
        )
        session.refresh(job)
    if job.status in SETTLED_JOBS:
        return job.status is JobStatus.CANCELLED
    if upload is not None:
        return cancel_upload(
            session, upload, job=job, extent=Extent.UNFINISHED, source=source, settings=settings
        )
    batch_id = session.scalar(select(Batch.id).where(Batch.job_id == job.id))
    if batch_id is not None:
        return cancel_batch(
            session,
            batch_id,
            job_id=job.id,
            tenant_id=job.tenant_id,
            source=source,
            settings=settings,
        )
    # Before the steps, as a worker locks them; the revision stays, with the tables found so far.
    revision_id = session.scalar(
        update(Revision)
        .where(Revision.job_id == job.id, Revision.tables_state == TablesState.PENDING)
        .values(tables_state=TablesState.FAILED)
        .returning(Revision.id)
    )
    for statement in () if revision_id is None else without_table(revision_id):
        session.execute(statement)
    ended = _cancel_steps(session, job.id)
    for name in dict.fromkeys(ended):
        session.execute(steps.release(job.tenant_id, name, settings=settings))
    session.refresh(job)
    if ended:
        log.info("job.cancelled", job_id=str(job.id), kind=job.kind)
    return job.status is JobStatus.CANCELLED


def cancel_upload(
    session: Session,
    upload: Upload,
    *,
    job: Job | None,
    extent: Extent,
    source: str,
    settings: StepSettings,
) -> bool:
    """Cancel a locked upload and its job.

    Returns:
        False if the upload has come further than `extent` allows; the transaction must roll back.
    """
    is_whole = extent is not Extent.UNSTORED
    allowed = CANCELLABLE_UPLOADS | ({UploadStatus.STORED} if is_whole else frozenset())
    cancelled = session.scalar(
        update(Upload)
        .where(Upload.id == upload.id, Upload.status.in_(allowed))
        .values(status=UploadStatus.CANCELLED)
        .returning(Upload.id)
    )
    if cancelled is None:
        return False
    session.execute(delete(Chunk).where(Chunk.upload_id == upload.id))
    event_id = emit(
        session,
        UploadCancelled(
            upload_id=upload.id, job_id=None if job is None else job.id, filename=upload.filename
        ),
        tenant_id=upload.tenant_id,
        source=source,
        now=session.scalars(select(func.now())).one(),
    )
    if job is not None:
        ended = _cancel_steps(session, job.id)
        if extent is Extent.UNSTORED and StepName.TRANSFER not in ended:
            return False
        if extent is Extent.UNFINISHED and not ended:
            return False  # the last step ended a moment ago
        # Before the cleanup is added: every cancel locks its counters after those of other steps.
        others = _cancel_other_jobs(session, upload.id) if is_whole else ()
        _add_cleanup(session, job, event_id=event_id)
        for name in dict.fromkeys((*ended, *others, StepName.CLEANUP)):
            session.execute(steps.release(job.tenant_id, name, settings=settings))
    log.info("upload.cancelled", upload_id=str(upload.id), extent=extent.name.lower())
    return True


def delete_document(session: Session, upload_id: UploadId) -> bool:
    """Delete the document of a cancelled upload; False if a worker is reading it.

    Never waits for the worker: this transaction may have locked the job and its steps, which the
    worker also writes, so that a wait would be a deadlock. The step `cleanup` deletes what is left.
    """
    documents = select(Document.id).where(Document.upload_id == upload_id)
    free = session.scalars(documents.with_for_update(skip_locked=True)).all()
    if free:
        # Revisions, pages and entities are deleted with the document.
        session.execute(delete(Document).where(Document.id.in_(free)))
        return True
    return session.scalar(documents) is None


def _cancel_other_jobs(session: Session, upload_id: UploadId) -> Sequence[StepName]:
    """Cancel the jobs that read the document of an upload again or make its images.

    Returns:
        The steps that ended.
    """
    reading_again = (
        select(Job.id)
        .join(Document, Document.id == Job.document_id)
        .where(Document.upload_id == upload_id, READS_AGAIN, IS_OPEN)
    )
    rendering = (
        select(Job.id)
        .join(image, image.job_id == Job.id)
        .join(Revision, Revision.id == image.revision_id)
        .join(Document, Document.id == Revision.document_id)
        .where(Document.upload_id == upload_id, IS_OPEN)
        for image in (PageImage, FigureImage)
    )
    jobs = session.scalars(union_all(reading_again, *rendering)).all()
    return _cancel_steps(session, *jobs)


def _cancel_steps(session: Session, *job_ids: JobId) -> Sequence[StepName]:
    """Cancel the open steps of some jobs; return their names.

    The rows are locked in the order in which every transaction locks the steps of a job. The UPDATE
    alone locks them in the order of their names, which could end in a deadlock with a retry.
    """
    session.execute(
        select(Step.job_id)
        .where(Step.job_id.in_(job_ids), Step.status.in_(ACTIVE_STEPS))
        .order_by(Step.job_id, Step.ordinal)
        .with_for_update()
    ).all()
    return session.scalars(steps.cancel(*job_ids)).all()


def _add_cleanup(session: Session, job: Job, *, event_id: EventId) -> None:
    """Take back the result of a job, and add the step that deletes its bytes and cancels it."""
    # Before the step is added, which increments the revision: clients then read the job again.
    session.execute(update(Job).where(Job.id == job.id).values(result=null()))
    steps.add_step(
        session,
        StepName.CLEANUP,
        job_id=job.id,
        tenant_id=job.tenant_id,
        priority=job.priority,
        event_id=event_id,
    )
    session.flush()
