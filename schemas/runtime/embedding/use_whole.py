"""The universal sentence encoder as it was published.

A convolution over two, three and five neighbouring word parts gives each word part a vector; a small
network turns their sum into the vector of the text.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.runtime.embedding.port import Vectors
from schemas.runtime.embedding.use_weights import (
    BRANCH,
    BRANCHES,
    EPSILON,
    WIDTH,
    Matrix,
    Weights,
    normalised,
)

BATCH: Final = 384
"""Word parts that are computed at a time: their numbers fit into the processor's cache."""

TOKENS_MAX: Final = 2_048
"""Word parts of a text that count; a passage has a tenth of them."""


class WholeEmbedder:
    """Sees each word part with its neighbours; safe to use from several threads."""

    dimension = WIDTH

    def __init__(self, name: str, weights: Weights) -> None:
        self.name = name
        self._weights = weights

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        vectors = np.empty((len(texts), WIDTH), dtype=np.float16)
        done = 0
        tokens = self._weights.vocabulary.encode(list(texts), add_bos=True, add_eos=True)
        for group in _groups(tokens):
            vectors[done : done + len(group)] = self._vectors_of(group)
            done += len(group)
        return vectors

    def _vectors_of(self, texts: Sequence[Sequence[int]]) -> Matrix:
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        count = int(lengths.sum())
        tokens = np.fromiter(chain.from_iterable(texts), dtype=np.int64, count=count)
        starts = np.concatenate(([0], np.cumsum(lengths[:-1])))
        features = self._features(tokens, starts=starts, lengths=lengths)
        layers, sizes = self._weights.layers, lengths.astype(np.float32)[:, None]
        # The projection of the sum is the sum of the projections, and has fewer rows.
        sums = np.add.reduceat(features, starts, axis=0) @ layers["cnn_W"]
        mean = (sums + sizes * layers["cnn_b"]) / np.sqrt(sizes)
        first = np.maximum(mean @ layers["d0"], 0)
        second = np.maximum(mean @ layers["p1"] + first @ layers["d1"], 0)
        third = np.maximum(second @ layers["d2"], 0)
        vectors = np.tanh(second @ layers["p3"] + third @ layers["d3"])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + EPSILON
        return vectors

    def _features(
        self, tokens: NDArray[np.int64], *, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Matrix:
        """Return the features of each word part: its own vector and those of the branches."""
        layers, count = self._weights.layers, len(tokens)
        own = self._weights.own_vectors(tokens)
        projected = self._weights.projected(own)
        neighbours = _neighbours(starts, lengths)
        features = [own]
        # The last row stands for a neighbour outside the text.
        padded = np.zeros((count + 1, BRANCH), dtype=np.float32)
        for place, (size, before) in enumerate(BRANCHES):
            columns = neighbours[:, 2 - before : 2 - before + size]
            branch = projected[:, place * BRANCH : (place + 1) * BRANCH]
            for layer in ("1", "2"):
                padded[:count] = branch
                seen = padded[columns].reshape(count, size * BRANCH)
                weight, bias = layers[f"w{layer}_{size}"], layers[f"b{layer}_{size}"]
                branch = branch + np.maximum(seen @ weight + bias, 0)
            features.append(branch)
        return normalised(np.concatenate(features, axis=1), layers["ln_g"], layers["ln_b"])


def _groups(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Yield the texts in groups of about `BATCH` word parts."""
    group, size = list[Sequence[int]](), 0
    for text in texts:
        shown = text[:TOKENS_MAX]
        if group and size + len(shown) > BATCH:
            yield group
            group, size = [], 0
        group.append(shown)
        size += len(shown)
    if group:
        yield group


def _neighbours(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each word part the places of the two before it, its own, and the two after it.

    Those outside its text have the place after the last one.
    """
    count = int(lengths.sum())
    places = np.arange(count)[:, None] + np.arange(-2, 3)
    first = np.repeat(starts, lengths)[:, None]
    last = np.repeat(starts + lengths, lengths)[:, None]
    return np.where((places >= first) & (places < last), places, count)
