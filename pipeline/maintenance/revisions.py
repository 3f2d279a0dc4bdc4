"""Deletes revisions that no client sees: those that were never published, and superseded ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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
        unseen = _unseen(context)
        for revision_id, upload_id in unseen:
            deleted += removal.delete_revision(
                context, revision_id, upload_id=upload_id, budget=budget
            )
        if len(unseen) < REVISIONS:
            break
    return Summary(revisions=deleted)


def _unseen(context: Context) -> Sequence[tuple[RevisionId, UploadId]]:
    """Return revisions that no client has seen for a while, oldest first, and their uploads."""
    unseen = (
        retention.revisions(grace=context.settings.sweep_grace)
        .order_by(Revision.created_at)
        .limit(REVISIONS)
    )
    with context.transaction() as session:
        return [(row.id, row.upload_id) for row in session.execute(unseen)]
