"""Models of vectors in the database, without the models themselves."""

from sqlalchemy.orm import Session

from schemas.lifecycle import EmbeddingModelState
from schemas.runtime.embedding import models
from schemas.runtime.embedding.chosen import Model
from schemas.runtime.embedding.port import Embedder, EmbedderUnavailable


def add_model(session: Session, *, dimension: int) -> int:
    """Add the active model, which makes no vectors itself; return its id."""

    def load(name: str) -> Embedder:
        raise EmbedderUnavailable(f"only the rows of {name} are needed")

    model = Model(name="test", dimension=dimension, load=load)
    return models.add(session, model, state=EmbeddingModelState.ACTIVE).id
