"""Deletes revisions that no client sees: those that were never published, and superseded ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select, update

from pipeline.context import Context
from pipeline.maintenance import removal
from pipeline.maintenance.exclusive import Budget
from schemas.ids import RevisionId, UploadId
from schemas.tables import retention
from schemas.tables.documents import Revision

REVISIONS: Final = 100
"""Revisions that one query looks for."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    revisions: int


def sweep(context: Context, budget: Budget) -> Summary:
    deleted = 0
    while not budget.is_spent:
        found = unseen_revisions(context)
        for revision_id, upload_id in found:
            if _take_from_job(context, revision_id):
                deleted += removal.delete_revision(
                    context, revision_id, upload_id=upload_id, budget=budget
                )
        if len(found) < REVISIONS:
            break
    return Summary(revisions=deleted)


def _take_from_job(context: Context, revision_id: RevisionId) -> bool:
    """Take a revision from its job before it is deleted in pieces; False if the job was retried.

    A retry of the job keeps the revision if the revision is still that of the job. The second
    statement sees what a retry has committed that held the lock.
    """
    with context.transaction() as session:
        session.execute(
            select(Revision.id).where(Revision.id == revision_id).with_for_update(key_share=True)
        ).all()
        due = retention.revisions(grace=context.settings.sweep_grace)
        if session.execute(due.where(Revision.id == revision_id)).first() is None:
            return False
        # No job has the id of a revision.
        session.execute(
            update(Revision).where(Revision.id == revision_id).values(job_id=revision_id)
        )
    return True


def unseen_revisions(context: Context) -> Sequence[tuple[RevisionId, UploadId]]:
    """Return revisions that no client has seen for a while, oldest first, and their uploads."""
    unseen = (
        retention.revisions(grace=context.settings.sweep_grace)
        .order_by(Revision.created_at)
        .limit(REVISIONS)
    )
    with context.transaction() as session:
        return [(row.id, row.upload_id) for row in session.execute(unseen)]
