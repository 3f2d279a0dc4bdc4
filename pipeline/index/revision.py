"""Indexes a revision under every model in use, and records what search has of the revision."""

from collections.abc import Callable

from sqlalchemy import update
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.index import vectors
from pipeline.index.vectors import ModelGone, RevisionGone
from schemas.ids import RevisionId
from schemas.lifecycle import EmbeddingModelState, SearchState
from schemas.runtime.embedding import chosen, models
from schemas.runtime.embedding.port import EmbedderUnavailable
from schemas.tables.documents import Revision


def index(
    context: Context, revision_id: RevisionId, *, after_batch: Callable[[int], None]
) -> SearchState | None:
    """Make the missing vectors of a revision, of the active model and of one that is being built.

    Args:
        context: the resources of the process.
        revision_id: a published revision.
        after_batch: called with the number of vectors of each batch; may raise to end the work.

    Returns:
        `WORDS` without a model that can be loaded; None if nobody needs the revision any more.
    """
    wanted = chosen.model_of(context.settings)
    state = SearchState.WORDS
    if wanted is None:
        return state
    with context.transaction() as session:
        rows = models.first(session, wanted)
    for row in rows:
        try:
            vectors.make(context, revision_id, row, after_batch=after_batch)
        except EmbedderUnavailable:
            continue  # logged once, by the process that cannot load it
        except ModelGone:
            continue
        except RevisionGone:
            return None
        if row.state is EmbeddingModelState.ACTIVE:
            state = SearchState.COMPLETE
    return state


def record_state(session: Session, revision_id: RevisionId, state: SearchState | None) -> None:
    """Record what search has of a revision."""
    session.execute(update(Revision).where(Revision.id == revision_id).values(search=state))
