"""The models find paraphrases, in one language and across two."""

import numpy as np
import pytest

from schemas.runtime.embedding import chosen
from schemas.runtime.embedding.port import Embedder, EmbedderUnavailable, Vectors, written
from schemas.settings import EmbeddingModelName, EmbeddingSettings

PASSAGES = (
    "Payment is due within thirty days of the date of the invoice.",
    "The cat sleeps on the warm roof of the old barn.",
    "Smoke alarms were missing in a fifth of the homes that burnt.",
    "Die Kündigung muss drei Monate vorher schriftlich erfolgen.",
)


@pytest.fixture(scope="module", params=list(chosen.MODELS))
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return chosen.named(chosen.MODELS[request.param].name)


def nearest(embedder: Embedder, query: str) -> str:
    vectors = embedder.embed([query, *PASSAGES]).astype(np.float32)
    return PASSAGES[int(np.argmax(vectors[1:] @ vectors[0]))]


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("deadline for paying the bill", 0),
        ("kitty resting on top of a building", 1),
        ("Wohnungen ohne Rauchmelder", 2),
        ("How much notice do I have to give to end the contract?", 3),
    ],
)
def test_a_paraphrase_is_nearest_to_its_passage(embedder: Embedder, query: str, place: int) -> None:
    assert nearest(embedder, query) == PASSAGES[place]


def test_a_vector_does_not_depend_on_the_texts_beside_it(embedder: Embedder) -> None:
    together = embedder.embed([*PASSAGES, *PASSAGES * 20])
    for text, vector in zip(PASSAGES, together, strict=False):
        difference = embedder.embed([text])[0].astype(np.float32) - vector.astype(np.float32)
        assert np.abs(difference).max() < 0.002


def test_a_vector_stays_the_same_while_other_words_are_met(embedder: Embedder) -> None:
    before = embedder.embed(PASSAGES)
    embedder.embed([chr(character) for character in range(0x4E00, 0x5A00)])
    assert (embedder.embed(PASSAGES) == before).all()


def lengths_of(vectors: Vectors) -> "list[float]":
    return [float(length) for length in np.linalg.norm(vectors.astype(np.float32), axis=1)]


def test_vectors_have_the_length_1_whatever_the_text(embedder: Embedder) -> None:
    texts = [
        "",
        " ",
        "\0",
        "\ud7ff\uffff",
        "x" * 100_000,
        "word " * 50_000,
        "…" * 3,
        "א ב ג",
        "日本語",
    ]
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), embedder.dimension)
    assert lengths_of(vectors) == pytest.approx([1] * len(texts), abs=0.01)


def test_a_loaded_model_is_the_one_that_its_name_promises() -> None:
    for model in chosen.MODELS.values():
        loaded = chosen.named(model.name)
        assert (loaded.name, loaded.dimension) == (model.name, model.dimension)
        assert chosen.named(model.name) is loaded


def test_two_models_never_share_a_name() -> None:
    assert len({model.name for model in chosen.MODELS.values()}) == len(chosen.MODELS)


def test_no_text_has_no_vector(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_a_model_that_this_version_does_not_have_is_unavailable() -> None:
    with pytest.raises(EmbedderUnavailable, match="no model gone-1"):
        chosen.named("gone-1")


def test_no_model_is_chosen_with_none() -> None:
    assert chosen.model_of(EmbeddingSettings(embedding_model=EmbeddingModelName.NONE)) is None


def test_a_vector_is_written_as_pgvector_reads_it() -> None:
    assert written(np.array([0.5, -1, 0], dtype=np.float16)) == "[0.5,-1.0,0.0]"
