"""Makes the vectors of documents that are there: those of a new model, and those that have none yet.

A turn goes on where the last one ended, in the order of the ids of the revisions. A revision that is
published meanwhile gets its vectors by its step `index`, which begins after the publication and so
finds the row of the new model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from psycopg.errors import LockNotAvailable
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.index import revision as revisions
from pipeline.index import vectors
from pipeline.index.vectors import ModelGone, RevisionGone
from schemas.ids import RevisionId
from schemas.lifecycle import EmbeddingModelState, SearchState
from schemas.runtime.embedding import chosen, models
from schemas.runtime.embedding.port import EmbedderUnavailable
from schemas.tables.documents import Document, Revision
from schemas.tables.passages import EmbeddingModel

log = structlog.stdlib.get_logger(__name__)

PAGE: Final = 50
"""Revisions of a part of a turn; a killed worker goes through as many again."""

PENDING_MAX: Final = 500
"""Pending revisions of which a turn looks for their steps."""

GRACE: Final = timedelta(minutes=1)
"""How long the vectors of a replaced model stay: a search that has begun may read them."""

# The step of a pending revision is lost with its job. The step `tables` still adds passages, and then the
# step `index`.
_LEFT: Final = text(
    """
    SELECT id FROM (
        SELECT id, job_id FROM revisions WHERE search = 'pending' ORDER BY id LIMIT :pending_max
    ) AS pending
    WHERE NOT EXISTS (
        SELECT FROM steps
        WHERE steps.job_id = pending.job_id AND name IN ('tables', 'index')
          AND status IN ('waiting', 'queued', 'running')
    )
    UNION ALL
    (SELECT id FROM revisions WHERE search = 'words' ORDER BY id LIMIT :page)
    LIMIT :page
    """
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a turn did.

    Attributes:
        indexed: revisions that had no vectors, and have them now.
        filled: revisions that were gone through for a model.
        switched: models that search uses from now on.
        dropped: models whose vectors were deleted.
    """

    indexed: int = 0
    filled: int = 0
    switched: int = 0
    dropped: int = 0


def sweep(context: Context, *, is_spent: Callable[[], bool]) -> Summary:
    """Take a turn, until everything has its vectors or `is_spent` answers true.

    Raises:
        EmbedderUnavailable: a model in use cannot be loaded; raised after the turn of the others, so that
            `waybill reindex` can replace a model that this version lacks.
    """
    dropped = _drop_retired(context)
    wanted = chosen.model_of(context.settings)
    if wanted is None:
        return Summary(dropped=dropped)
    with context.transaction() as session:
        rows = models.first(session, wanted)
    missing = _missing(rows)
    # Without the active model, they would stay as they are.
    indexed = 0 if missing else _index_left(context, is_spent=is_spent)
    filled = switched = 0
    for row in rows:
        if row.filled_at is None and row.name not in missing:
            done, is_filled = _fill(context, row, is_spent=is_spent)
            filled += done
            if is_filled:
                switched += _end(context, row)
    for unavailable in missing.values():
        raise unavailable
    return Summary(indexed=indexed, filled=filled, switched=switched, dropped=dropped)


def _missing(rows: Sequence[EmbeddingModel]) -> dict[str, EmbedderUnavailable]:
    """Return why models cannot be loaded, by name."""
    missing = {}
    for row in rows:
        try:
            chosen.named(row.name)
        except EmbedderUnavailable as unavailable:
            missing[row.name] = unavailable
    return missing


def _index_left(context: Context, *, is_spent: Callable[[], bool]) -> int:
    """Index revisions that were published without a model, or whose step is lost."""
    indexed = 0
    while not is_spent():
        with context.transaction() as session:
            left = session.scalars(_LEFT, {"pending_max": PENDING_MAX, "page": PAGE}).all()
        if not left:
            break
        for revision_id in left:
            if is_spent():
                break
            state = revisions.index(context, revision_id, after_batch=lambda _: None)
            with context.transaction() as session:
                revisions.record_state(session, revision_id, state)
            indexed += 1
    return indexed


def _fill(
    context: Context, row: EmbeddingModel, *, is_spent: Callable[[], bool]
) -> tuple[int, bool]:
    """Make the vectors of a model for the next revisions.

    Returns:
        How many revisions were gone through, and whether all were.
    """
    place, done = row.filled_to, 0
    while not is_spent():
        with context.transaction() as session:
            page = _shown_after(session, place)
        if not page:
            return done, True
        through = list[RevisionId]()
        for revision_id in page:
            try:
                vectors.make(context, revision_id, row, after_batch=lambda _: None)
            except RevisionGone:
                pass
            except ModelGone:
                return done, False
            through.append(revision_id)
            if is_spent():
                break
        place = through[-1]
        with context.transaction() as session:
            _record_place(session, row, place=place, through=through)
        done += len(through)
    return done, False


def _shown_after(session: Session, place: RevisionId | None) -> Sequence[RevisionId]:
    """Return the next revisions that clients see, in the order of their ids."""
    shown = (
        select(Revision.id)
        .join(Document, Document.id == Revision.document_id)
        # Without a state it has no passages yet; see `pipeline.maintenance.passages`.
        .where(Document.revision_id == Revision.id, Revision.search.is_not(None))
        .order_by(Revision.id)
        .limit(PAGE)
    )
    return session.scalars(shown if place is None else shown.where(Revision.id > place)).all()


def _record_place(
    session: Session, row: EmbeddingModel, *, place: RevisionId, through: Sequence[RevisionId]
) -> None:
    if row.state is EmbeddingModelState.ACTIVE:
        session.execute(
            update(Revision)
            # A pending one may get more passages before its step.
            .where(
                Revision.id.in_(through),
                Revision.search.in_((SearchState.WORDS, SearchState.FAILED)),
            )
            .values(search=SearchState.COMPLETE)
        )
    session.execute(
        update(EmbeddingModel)
        .where(EmbeddingModel.id == row.id)
        .values(filled_to=place, revisions_done=EmbeddingModel.revisions_done + len(through))
    )


def _end(context: Context, row: EmbeddingModel) -> int:
    """Record that a model has the vectors of every revision; let search use it if it was built.

    Returns:
        Whether search uses another model from now on.
    """
    with context.transaction() as session:
        if not models.keep(session, row.id):
            return 0
        session.execute(text(f"ANALYZE passage_embeddings_{int(row.id)}"))
    with context.transaction() as session:
        is_switched = models.switch(session, row)
        session.execute(
            update(EmbeddingModel).where(EmbeddingModel.id == row.id).values(filled_at=func.now())
        )
    log.info("index.model_filled", model=row.name, switched=is_switched)
    return int(is_switched)


def _drop_retired(context: Context) -> int:
    """Delete the vectors of models that were replaced some time ago."""
    with context.transaction() as session:
        retired = models.retired(session, before=GRACE)
    dropped = 0
    for model_id in retired:
        try:
            with context.transaction() as session:
                models.drop(session, model_id)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            log.info("index.model_in_use", model_id=model_id)
        else:
            dropped += 1
    return dropped
