"""The models whose vectors are stored: their rows, and the partition of each.

A partition is created beside the table and then attached, which blocks no reader and no writer for
longer than a moment. Creating, attaching and dropping wait for other transactions at most
`LOCK_TIMEOUT`; then they raise an error, and a later call tries again.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, LiteralString

from sqlalchemy import ScalarSelect, delete, exists, func, select, text, update
from sqlalchemy.orm import Session, aliased

from schemas.lifecycle import EmbeddingModelState
from schemas.runtime.embedding.chosen import Model
from schemas.tables.documents import Document
from schemas.tables.passages import EmbeddingModel

LOCK_TIMEOUT: Final = "2s"

LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('waybill.embedding_models', 0))")

_ACTIVE: Final = aliased(EmbeddingModel)

IN_USE: Final = (EmbeddingModelState.ACTIVE, EmbeddingModelState.BUILDING)

# The index is on an expression, because the column of the parent has no dimension.
_ADD_PARTITION: Final[LiteralString] = """
    SET LOCAL lock_timeout = '{lock_timeout}';
    CREATE TABLE passage_embeddings_{id} (LIKE passage_embeddings INCLUDING DEFAULTS);
    ALTER TABLE passage_embeddings_{id}
        ADD CONSTRAINT ck_passage_embeddings_{id}_model CHECK (model_id = {id}),
        ADD CONSTRAINT ck_passage_embeddings_{id}_dimension CHECK (vector_dims(embedding) = {dimension}),
        ALTER COLUMN embedding SET STORAGE PLAIN;
    CREATE INDEX ix_passage_embeddings_{id}_nearest ON passage_embeddings_{id}
        USING hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops);
    ALTER TABLE passage_embeddings ATTACH PARTITION passage_embeddings_{id} FOR VALUES IN ({id});
"""


def active(session: Session) -> EmbeddingModel | None:
    """Return the model that search uses."""
    return session.scalar(
        select(EmbeddingModel).where(EmbeddingModel.state == EmbeddingModelState.ACTIVE)
    )


def in_use(session: Session) -> Sequence[EmbeddingModel]:
    """Return the models that new passages get vectors of, the active one first."""
    return session.scalars(
        select(EmbeddingModel)
        .where(EmbeddingModel.state.in_(IN_USE))
        .order_by(EmbeddingModel.state, EmbeddingModel.id)
    ).all()


def first(session: Session, model: Model) -> Sequence[EmbeddingModel]:
    """Return the models in use; the first one of a database is added, and is active at once.

    Search then finds documents by the vectors that are made so far, and by words all others.
    """
    found = in_use(session)
    if found:
        return found
    session.execute(LOCK)
    found = in_use(session)
    return found or [add(session, model, state=EmbeddingModelState.ACTIVE)]


def add(session: Session, model: Model, *, state: EmbeddingModelState) -> EmbeddingModel:
    """Add a model that has no row, with its partition, in a transaction that holds `LOCK`."""
    row = EmbeddingModel(
        name=model.name,
        dimension=model.dimension,
        state=state,
        activated_at=func.now() if state is EmbeddingModelState.ACTIVE else None,
        revisions_total=shown_revisions(),
    )
    session.add(row)
    session.flush()
    for statement in _ADD_PARTITION.format(
        id=int(row.id), dimension=int(row.dimension), lock_timeout=LOCK_TIMEOUT
    ).split(";"):
        if statement.strip():
            session.execute(text(statement.replace(":", r"\:")))
    return row


def shown_revisions() -> ScalarSelect[int]:
    """Return the query for the number of documents that can have vectors."""
    return (
        select(func.count())
        .select_from(Document)
        .where(Document.revision_id.is_not(None))
        .scalar_subquery()
    )


def switch(session: Session, row: EmbeddingModel) -> bool:
    """Let search use a model that was built, instead of the active one; False if it is active already."""
    session.execute(LOCK)
    state = session.scalar(select(EmbeddingModel.state).where(EmbeddingModel.id == row.id))
    if state is not EmbeddingModelState.BUILDING:
        return False
    session.execute(
        update(EmbeddingModel)
        .where(EmbeddingModel.state == EmbeddingModelState.ACTIVE)
        .values(state=EmbeddingModelState.RETIRED)
    )
    session.execute(
        update(EmbeddingModel)
        .where(EmbeddingModel.id == row.id)
        .values(state=EmbeddingModelState.ACTIVE, activated_at=func.now())
    )
    return True


def retired(session: Session, *, before: timedelta) -> Sequence[int]:
    """Return the models that were replaced, if that was `before` ago."""
    return session.scalars(
        select(EmbeddingModel.id).where(
            EmbeddingModel.state == EmbeddingModelState.RETIRED,
            ~exists().where(_ACTIVE.activated_at > func.now() - before),
        )
    ).all()


def keep(session: Session, model_id: int) -> bool:
    """Keep a model with its partition until the end of the transaction; False if it is deleted already.

    Without it, the partition may be dropped before the transaction writes its vectors.
    """
    kept = session.scalar(
        select(EmbeddingModel.id)
        .where(EmbeddingModel.id == model_id)
        .with_for_update(read=True, key_share=True)
    )
    return kept is not None


def drop(session: Session, model_id: int) -> None:
    """Delete a model with its vectors.

    Raises:
        sqlalchemy.exc.OperationalError: other transactions use the table for too long.
    """
    session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    # The row first: it waits for `keep`.
    session.execute(delete(EmbeddingModel).where(EmbeddingModel.id == model_id))
    session.execute(text(f"DROP TABLE IF EXISTS passage_embeddings_{int(model_id)}"))
