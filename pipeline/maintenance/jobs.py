"""Deletes jobs that ended long ago, with their steps, and the uploads that have no document.

A stored upload stays as long as its document: it has the metadata of the document and counts its
bytes. Only its chunks are deleted with its job.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, Select, delete, select, tuple_
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance import removal
from pipeline.maintenance.exclusive import Budget
from schemas.ids import JobId, UploadId
from schemas.tables import retention
from schemas.tables.documents import Document
from schemas.tables.jobs import Job
from schemas.tables.retention import WITHOUT_OBJECT
from schemas.tables.steps import Step
from schemas.tables.uploads import Chunk, Upload

BATCH: Final = 500
"""Jobs per transaction; a job has up to four steps."""

CHUNKS: Final = 10_000
"""Chunks per transaction, if the uploads of its jobs have many; one upload may have more."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was deleted.

    Attributes:
        jobs: ended jobs.
        uploads: uploads without a document: with their job, and those that were never finalized.
    """

    jobs: int
    uploads: int


def sweep(context: Context, budget: Budget) -> Summary:
    jobs = uploads = 0
    after: tuple[datetime, JobId] | None = None
    while not budget.is_spent:
        with context.transaction() as session:
            candidates = session.execute(_next(context, after=after)).all()
        if not candidates:
            break
        batch = _bounded(candidates)
        after = (batch[-1].at, batch[-1].id)
        with context.transaction() as session:
            deleted = _delete(session, context, batch)
        jobs += deleted.jobs
        uploads += deleted.uploads
    return Summary(jobs=jobs, uploads=uploads + _sweep_never_finalized(context, budget))


def _next(context: Context, *, after: tuple[datetime, JobId] | None) -> Select[*tuple[Any, ...]]:
    """Return the query of the next ended jobs, the oldest first.

    Each query continues after the last job of the one before: jobs that must be kept are read once
    in a sweep.
    """
    query = (
        retention.jobs(kept_for=context.settings.job_retention)
        .outerjoin(Upload, Upload.id == Job.upload_id)
        .add_columns(Upload.chunk_count)
        .order_by(Job.finished_at, Job.id)
        .limit(BATCH)
    )
    return query if after is None else query.where(tuple_(Job.finished_at, Job.id) > after)


def _bounded(candidates: Sequence[Row[*tuple[Any, ...]]]) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the first candidates whose uploads have at most `CHUNKS` chunks together; one at least."""
    chunks = 0
    for place, candidate in enumerate(candidates):
        chunks += candidate.chunk_count or 0
        if chunks > CHUNKS and place > 0:
            return candidates[:place]
    return candidates


def _delete(session: Session, context: Context, batch: Sequence[Row[*tuple[Any, ...]]]) -> Summary:
    """Delete jobs that are still due, under locks in the order of `schemas.tables.steps`.

    A purge or a retry that runs at this moment keeps its job.
    """
    of_uploads = {job.upload_id for job in batch if job.upload_id is not None}
    free = set(
        session.scalars(
            select(Upload.id)
            .where(Upload.id.in_(of_uploads))
            .order_by(Upload.id)
            .with_for_update(skip_locked=True)
        )
    )
    ids = [job.id for job in batch if job.upload_id is None or job.upload_id in free]
    session.execute(
        select(Step.name)
        .where(Step.job_id.in_(ids))
        .order_by(Step.job_id, Step.ordinal)
        .with_for_update()
    )
    due = session.execute(
        retention.jobs(kept_for=context.settings.job_retention)
        .where(Job.id.in_(ids))
        .order_by(Job.id)
        .with_for_update(of=Job)
    ).all()
    uploads = [job.upload_id for job in due if job.upload_id is not None]
    session.execute(delete(Chunk).where(Chunk.upload_id.in_(uploads)))
    removal.delete_jobs(session, [job.id for job in due])
    return Summary(jobs=len(due), uploads=_delete_without_document(session, uploads))


def _delete_without_document(session: Session, upload_ids: Collection[UploadId]) -> int:
    """Delete those of some locked uploads that failed or were cancelled; return how many."""
    without = session.scalars(
        select(Upload.id).where(
            Upload.id.in_(upload_ids),
            Upload.status.in_(WITHOUT_OBJECT),
            # Of a document that was deleted: kept for the webhooks, see `pipeline.maintenance.documents`.
            Upload.removed_at.is_(None),
            Upload.finalized_at.is_not(None),
            # The purge waits for a worker that reads the document.
            ~select(Document.id).where(Document.upload_id == Upload.id).exists(),
        )
    ).all()
    removal.delete_uploads(session, without)
    return len(without)


def _sweep_never_finalized(context: Context, budget: Budget) -> int:
    """Delete uploads that ended without a job: expired ones, and those cancelled before."""
    deleted = 0
    query = (
        retention.uploads(kept_for=context.settings.job_retention)
        .order_by(Upload.expires_at)
        .limit(BATCH)
        # A repeated cancel locks the upload.
        .with_for_update(skip_locked=True)
    )
    count = BATCH
    while count == BATCH and not budget.is_spent:
        with context.transaction() as session:
            ids = session.scalars(query).all()
            removal.delete_uploads(session, ids)
        count = len(ids)
        deleted += count
    return deleted
