"""Deletes revisions that no client sees: those that were never published, and superseded ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import and_, delete, func, or_, select, tuple_
from sqlalchemy.sql.dml import ReturningDelete

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from schemas import object_keys
from schemas.ids import RevisionId, UploadId
from schemas.lifecycle import SETTLED_JOBS, RevisionState
from schemas.tables.documents import Document, Entity, Page, PageImage, Revision
from schemas.tables.jobs import Job

REVISIONS: Final = 100
"""Revisions that one query looks for."""

ROWS: Final = 1_000
"""Rows that one transaction deletes; a long document has hundreds of thousands."""


OfRevision: TypeAlias = PageImage | Entity | Page


@dataclass(frozen=True, kw_only=True)
class Summary:
    revisions: int


def sweep(context: Context, budget: Budget) -> Summary:
    deleted = 0
    while not budget.is_spent:
        unseen = _unseen(context)
        for revision_id, upload_id in unseen:
            deleted += _delete(context, revision_id, upload_id=upload_id, budget=budget)
        if len(unseen) < REVISIONS:
            break
    return Summary(revisions=deleted)


def _unseen(context: Context) -> Sequence[tuple[RevisionId, UploadId]]:
    """Return revisions that no client has seen for a while, oldest first, and their uploads.

    A client may still read the pages of a revision that was replaced a moment ago.
    """
    grace = func.now() - context.settings.sweep_grace
    with context.transaction() as session:
        found = session.execute(
            select(Revision.id, Document.upload_id)
            .join(Document, Document.id == Revision.document_id)
            .join(Job, Job.id == Revision.job_id)
            .where(
                Revision.state != RevisionState.PUBLISHED,
                Revision.id.is_distinct_from(Document.revision_id),
                Job.status.in_(SETTLED_JOBS),
                or_(
                    and_(Revision.state == RevisionState.WRITING, Job.finished_at < grace),
                    and_(
                        Revision.state == RevisionState.SUPERSEDED,
                        Document.ingested_at < grace,
                    ),
                ),
            )
            .order_by(Revision.created_at)
            .limit(REVISIONS)
        )
        return [(row.id, row.upload_id) for row in found]


def _delete(
    context: Context, revision_id: RevisionId, *, upload_id: UploadId, budget: Budget
) -> bool:
    """Delete a revision with its pages and images, in short transactions; False if the budget is spent before."""
    # Before the objects: a worker that stores an image and finds no row deletes the image.
    if not _delete_rows(context, PageImage, revision_id, budget=budget):
        return False
    prefix = object_keys.of_revision(upload_id, revision_id)
    context.storage.delete_all([each.key for each in context.storage.objects_under(prefix)])
    for table in (Entity, Page):
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
