"""Deletes jobs, uploads, objects and revisions with all that hangs below them; repetitions are harmless."""

from collections.abc import Collection
from itertools import islice
from typing import Final, TypeAlias

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningDelete

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from pipeline.storage.port import ObjectStorage
from pipeline.transfer import cleanup
from schemas import object_keys
from schemas.ids import JobId, RevisionId, TenantId, UploadId
from schemas.lifecycle import JobStatus
from schemas.tables.documents import (
    DocumentTable,
    Entity,
    Figure,
    FigureImage,
    Page,
    PageImage,
    Revision,
)
from schemas.tables.jobs import Job
from schemas.tables.passages import Passage, PassageEmbedding
from schemas.tables.uploads import Upload

ROWS: Final = 1_000
"""Rows that one transaction deletes; a long document has hundreds of thousands."""

OfRevision: TypeAlias = (
    PageImage | FigureImage | PassageEmbedding | Passage | DocumentTable | Figure | Entity | Page
)


def delete_jobs(session: Session, job_ids: Collection[JobId]) -> None:
    """Delete ended jobs with their steps, exports and passwords.

    An image that a job has stored stays; one that its job did not make may be asked for again.
    """
    unmade = select(Job.id).where(Job.id.in_(job_ids), Job.status != JobStatus.COMPLETED)
    for image in (PageImage, FigureImage):
        session.execute(delete(image).where(image.job_id.in_(unmade)))
    session.execute(delete(Job).where(Job.id.in_(job_ids)))


def delete_uploads(session: Session, upload_ids: Collection[UploadId]) -> None:
    """Delete uploads without a document and without a job, with their chunks and passwords."""
    session.execute(delete(Upload).where(Upload.id.in_(upload_ids)))


def delete_objects(storage: ObjectStorage, *, tenant_id: TenantId, upload_id: UploadId) -> None:
    """Delete the object of an upload that has no staged bytes any more, and what was made of it.

    Raises:
        StoreFailed: the store failed; some objects may be left.
    """
    cleanup.delete_object(object_keys.original(tenant_id, upload_id), storage=storage)
    derived = storage.objects_under(object_keys.derived(upload_id))
    while keys := [found.key for found in islice(derived, cleanup.DELETE_BATCH)]:
        storage.delete_all(keys)


def delete_revision(
    context: Context, revision_id: RevisionId, *, upload_id: UploadId, budget: Budget
) -> bool:
    """Delete a revision with its pages, what was made of them, and its images, in short transactions.

    Returns:
        Whether the revision was deleted; False if the budget is spent before.

    Raises:
        StoreFailed: the store failed to delete the images.
    """
    # Before the objects: a worker that stores an image and finds no row deletes the image.
    for image in (PageImage, FigureImage):
        if not _delete_rows(context, image, revision_id, budget=budget):
            return False
    prefix = object_keys.of_revision(upload_id, revision_id)
    context.storage.delete_all([each.key for each in context.storage.objects_under(prefix)])
    for table in (PassageEmbedding, Passage, DocumentTable, Figure, Entity, Page):
        if not _delete_rows(context, table, revision_id, budget=budget):
            return False
    with context.transaction() as session:
        session.execute(delete(Revision).where(Revision.id == revision_id))
    return True


def _delete_rows(
    context: Context, table: type[OfRevision], revision_id: RevisionId, *, budget: Budget
) -> bool:
    """Delete the rows of a revision, in short transactions; False if the budget is spent before."""
    statement = _some_rows(table, revision_id)
    count = ROWS
    while count == ROWS:
        if budget.is_spent:
            return False
        with context.transaction() as session:
            count = len(session.execute(statement).all())
    return True


def _some_rows(table: type[OfRevision], revision_id: RevisionId) -> ReturningDelete[RevisionId]:
    key = table.__table__.primary_key
    some = select(*key).where(table.revision_id == revision_id).limit(ROWS)
    return delete(table).where(tuple_(*key).in_(some)).returning(table.revision_id)
