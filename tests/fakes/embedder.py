"""A model of another dimension, which needs no weights."""

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np

from schemas.runtime.embedding.chosen import Model
from schemas.runtime.embedding.port import Embedder, Vectors


class LetterCounter:
    """Counts the letters of a text."""

    dimension = len(ascii_lowercase)

    def __init__(self, name: str) -> None:
        self.name = name

    def embed(self, texts: Sequence[str]) -> Vectors:
        counts = np.array(
            [[1 + text.lower().count(each) for each in ascii_lowercase] for text in texts]
        )
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        vectors: Vectors = (counts / lengths).astype(np.float16)
        return vectors


def load(name: str) -> Embedder:
    return LetterCounter(name)


LETTERS = Model(name="letters-1-26", dimension=LetterCounter.dimension, load=load)
