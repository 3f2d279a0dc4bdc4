"""Orders the vectors of a new model, and follows them; the workers of `search_indexing` make them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from gateway.administration import audit
from gateway.db import Database
from schemas.lifecycle import EmbeddingModelState
from schemas.runtime.embedding import models
from schemas.runtime.embedding.chosen import Model
from schemas.tables.passages import EmbeddingModel

LOOK_EVERY: Final = timedelta(seconds=1)


class ReindexRefused(Exception):
    """The vectors of the model cannot be made now."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the vectors of a model are.

    Attributes:
        done: revisions that the workers have been through.
        total: about how many there are, counted at the order.
        filled_at: None until every revision has its vectors.
    """

    model: str
    state: EmbeddingModelState
    done: int
    total: int
    filled_at: datetime | None


async def order(session: AsyncSession, model: Model, *, actor: str) -> int:
    """Order that every document gets vectors of a model, which search then uses; return the model's id.

    Search goes on with the active model meanwhile. A repetition continues what it finds; for the model
    that is active already, it makes the vectors that are missing.

    Raises:
        ReindexRefused: the vectors of another new model are being made, or old ones of this model
            are being deleted.
    """
    model_id = await session.run_sync(begin, model)
    audit.record(
        session,
        actor=actor,
        action="search.reindex_ordered",
        target=f"embedding_model/{model_id}",
        detail={"model": model.name},
    )
    return model_id


def begin(session: Session, model: Model) -> int:
    """Add the model, or continue with it; see `order`."""
    session.execute(models.LOCK)
    rows = {row.name: row for row in session.scalars(select(EmbeddingModel)).all()}
    own = rows.pop(model.name, None)
    if own is None:
        building = [row for row in rows.values() if row.state is EmbeddingModelState.BUILDING]
        if building:
            raise ReindexRefused(
                f"the vectors of {building[0].name} are being made: wait for their end, or give them "
                "up with --give-up"
            )
        is_first = all(row.state is not EmbeddingModelState.ACTIVE for row in rows.values())
        state = EmbeddingModelState.ACTIVE if is_first else EmbeddingModelState.BUILDING
        return models.add(session, model, state=state).id
    match own.state:
        case EmbeddingModelState.RETIRED:
            raise ReindexRefused(
                f"the earlier vectors of {own.name} are being deleted: try again in a minute"
            )
        case EmbeddingModelState.ACTIVE if own.filled_at is not None:
            session.execute(
                update(EmbeddingModel)
                .where(EmbeddingModel.id == own.id)
                .values(
                    filled_at=None,
                    filled_to=None,
                    revisions_done=0,
                    revisions_total=models.shown_revisions(),
                )
            )
    return own.id


async def give_up(session: AsyncSession, *, actor: str) -> str | None:
    """Give up the model whose vectors are being made; return its name, None if there is none."""
    await session.execute(models.LOCK)
    name = await session.scalar(
        update(EmbeddingModel)
        .where(EmbeddingModel.state == EmbeddingModelState.BUILDING)
        .values(state=EmbeddingModelState.RETIRED)
        .returning(EmbeddingModel.name)
    )
    if name is not None:
        audit.record(
            session,
            actor=actor,
            action="search.reindex_given_up",
            target="embedding_model",
            detail={"model": name},
        )
    return name


async def progress(session: AsyncSession, model_id: int) -> Progress:
    """Return how far the vectors of a model are.

    Raises:
        ReindexRefused: the model was given up.
    """
    row = await session.get(EmbeddingModel, model_id, populate_existing=True)
    if row is None or row.state is EmbeddingModelState.RETIRED:
        raise ReindexRefused("the model was given up or replaced")
    return Progress(
        model=row.name,
        state=row.state,
        done=row.revisions_done,
        total=row.revisions_total,
        filled_at=row.filled_at,
    )


async def follow(
    database: Database, model_id: int, *, report: Callable[[Progress], None]
) -> Progress:
    """Wait until search uses the model with the vectors of every document; report each change.

    Raises:
        ReindexRefused: the model was given up.
    """
    last = None
    while True:
        async with database.transaction() as session:
            found = await progress(session, model_id)
        if found != last:
            report(found)
            last = found
        if found.filled_at is not None and found.state is EmbeddingModelState.ACTIVE:
            return found
        await asyncio.sleep(LOOK_EVERY.total_seconds())
