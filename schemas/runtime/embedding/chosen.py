"""The models that this version has, and those that this process has loaded.

A model is loaded when it is first needed, and then stays: two are loaded only while `waybill reindex`
makes the vectors of a new model beside the old ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import Final

import structlog

from schemas.runtime.embedding.port import Embedder, EmbedderUnavailable
from schemas.settings import EmbeddingModelName, EmbeddingSettings

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of a model before it is loaded.

    Attributes:
        name: with the version and the dimension: the name of its row in `embedding_models`.
        load: loads it, given its name; raises `EmbedderUnavailable`.
        near: cosine similarity that most texts about the same thing have, and few others.
    """

    name: str
    dimension: int
    load: Callable[[str], Embedder]
    near: float = 0.0


def _use(name: str) -> Embedder:
    from schemas.runtime.embedding import use_weights  # noqa: PLC0415  # numpy takes 30 MiB
    from schemas.runtime.embedding.use_whole import WholeEmbedder  # noqa: PLC0415  # numpy takes 30 MiB

    return WholeEmbedder(name, use_weights.load())


def _use_static(name: str) -> Embedder:
    from schemas.runtime.embedding import use_weights  # noqa: PLC0415  # numpy takes 30 MiB
    from schemas.runtime.embedding.use_static import StaticEmbedder  # noqa: PLC0415  # numpy takes 30 MiB

    return StaticEmbedder(name, use_weights.load())


MODELS: Final[Mapping[EmbeddingModelName, Model]] = MappingProxyType(
    {
        EmbeddingModelName.USE_STATIC: Model(
            name="use-multilingual-3-static-1-512", dimension=512, load=_use_static, near=0.25
        ),
        EmbeddingModelName.USE: Model(
            name="use-multilingual-3-512", dimension=512, load=_use, near=0.12
        ),
    }
)
"""By the value of `EMBEDDING_MODEL`."""

_lock: Final = Lock()
_loaded: Final[dict[str, Embedder | EmbedderUnavailable]] = {}


def model_of(settings: EmbeddingSettings) -> Model | None:
    """Return the model that new vectors are made by; None with `EMBEDDING_MODEL=none`."""
    return MODELS.get(settings.embedding_model)


def near_of(name: str | None) -> float:
    """Return how similar texts about the same thing are for a model; 0 if it is unknown."""
    return next((each.near for each in MODELS.values() if each.name == name), 0.0)


def named(name: str) -> Embedder:
    """Return the loaded model of a row of `embedding_models`.

    The first call takes up to a second, so an event loop calls this in a thread.

    Args:
        name: of the row.

    Raises:
        EmbedderUnavailable: this version has no such model, or a package is missing or has other
            weights; every later call raises the same.
    """
    with _lock:
        found = _loaded.get(name)
        if found is None:
            try:
                found = _load(name)
            except EmbedderUnavailable as unavailable:
                log.warning("embedder.unavailable", model=name, reason=str(unavailable))
                found = unavailable
            _loaded[name] = found
    if isinstance(found, EmbedderUnavailable):
        raise found
    return found


def _load(name: str) -> Embedder:
    model = next((each for each in MODELS.values() if each.name == name), None)
    if model is None:
        raise EmbedderUnavailable(f"this version has no model {name}")
    embedder = model.load(name)
    log.info("embedder.loaded", model=name)
    return embedder
