"""The universal sentence encoder with one vector for each word part, whatever is beside it.

In the original, the vector of a word part depends on its neighbours, which takes nearly all of the
time. Here its neighbours are the average of all word parts, so that its vector is computed once, when a
process first meets it. The vector of a text is the sum of the vectors of its word parts, each weighted
by how rare it is: Arora and others, "A simple but tough-to-beat baseline for sentence embeddings",
2017. The network after the sum is left out: on sums without context it makes the vectors worse.
"""

from collections.abc import Sequence
from itertools import chain
from threading import Lock
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

RARE: Final = 1e-3
"""Share of all word parts at which a word part counts half as much as a very rare one."""

COMMON: Final = 6_000
"""The most common word parts, whose average stands for the neighbours."""

SPECIAL: Final = 3
"""The first word parts are no text: unknown, start and end."""

BATCH: Final = 1_024
"""Word parts that are added up at a time: their numbers fit into the cache of the processor."""

UNKNOWN: Final = -1
"""The row of a word part that has no vector yet."""

NEW_MAX: Final = 1_024
"""New word parts that are computed at a time: 16 MiB."""


class StaticEmbedder:
    """Sees each word part alone; safe to use from several threads."""

    dimension = WIDTH

    def __init__(self, name: str, weights: Weights) -> None:
        self.name = name
        self._weights = weights
        count = weights.vocabulary.vocab_size()
        shares = np.exp([weights.vocabulary.get_score(token) for token in range(count)])
        shares[:SPECIAL] = 0
        self._rarity = (RARE / (RARE + shares)).astype(np.float32)
        common = np.argsort(-shares, kind="stable")[:COMMON]
        seen = weights.projected(weights.own_vectors(common))
        self._neighbour = (shares[common] @ seen / shares[common].sum()).astype(np.float32)
        # In the order in which the word parts are met: a few languages have tens of MiB, all 130.
        self._vectors = np.empty((NEW_MAX, WIDTH), dtype=np.float16)
        self._rows = np.full(count, UNKNOWN, dtype=np.int32)
        self._known = 0
        self._lock = Lock()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        vectors = np.empty((len(texts), WIDTH), dtype=np.float16)
        # A text without a word part has the vector of the unknown one.
        tokens = [each or [0] for each in self._weights.vocabulary.encode(list(texts))]
        done = 0
        while done < len(tokens):
            size, end = 0, done
            while end < len(tokens) and (end == done or size + len(tokens[end]) <= BATCH):
                size += len(tokens[end])
                end += 1
            vectors[done:end] = self._vectors_of(tokens[done:end])
            done = end
        return vectors

    def _vectors_of(self, texts: Sequence[Sequence[int]]) -> Matrix:
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        tokens = np.fromiter(chain.from_iterable(texts), dtype=np.int64, count=int(lengths.sum()))
        self._learn(tokens)
        starts = np.concatenate(([0], np.cumsum(lengths[:-1])))
        # The rows before the vectors: `_learn` writes them in the other order.
        rows = self._rows[tokens]
        sums = np.add.reduceat(self._vectors[rows].astype(np.float32), starts, axis=0)
        sums /= np.linalg.norm(sums, axis=1, keepdims=True) + EPSILON
        return sums

    def _learn(self, tokens: NDArray[np.int64]) -> None:
        """Compute the vectors of word parts that were not met before."""
        if (self._rows[tokens] != UNKNOWN).all():
            return
        with self._lock:
            new = np.unique(tokens[self._rows[tokens] == UNKNOWN])
            for start in range(0, len(new), NEW_MAX):
                part = new[start : start + NEW_MAX]
                end = self._known + len(part)
                if end > len(self._vectors):
                    longer = np.empty((2 * len(self._vectors), WIDTH), dtype=np.float16)
                    longer[: self._known] = self._vectors[: self._known]
                    self._vectors = longer
                self._vectors[self._known : end] = self._features(part) * self._rarity[part, None]
                # Last: other threads read without the lock.
                self._rows[part] = np.arange(self._known, end, dtype=np.int32)
                self._known = end

    def _features(self, tokens: NDArray[np.int64]) -> Matrix:
        layers = self._weights.layers
        own = self._weights.own_vectors(tokens)
        projected = self._weights.projected(own)
        features = [own]
        for place, (size, before) in enumerate(BRANCHES):
            columns = slice(place * BRANCH, (place + 1) * BRANCH)
            features.append(
                self._branch(
                    projected[:, columns], self._neighbour[columns], size=size, before=before
                )
            )
        rows = normalised(np.concatenate(features, axis=1), layers["ln_g"], layers["ln_b"])
        result: Matrix = rows @ layers["cnn_W"] + layers["cnn_b"]
        return result

    def _branch(self, rows: Matrix, neighbour: Matrix, *, size: int, before: int) -> Matrix:
        """Return the vectors of a branch for word parts among average neighbours."""
        layers = self._weights.layers
        first, second = (layers[f"w{n}_{size}"].reshape(size, BRANCH, BRANCH) for n in (1, 2))
        among_average = neighbour @ first.sum(axis=0) + layers[f"b1_{size}"]

        def seen_at(distance: int) -> Matrix:
            """Return the first layer at a place beside the word part."""
            shown = np.broadcast_to(neighbour, rows.shape) if distance else rows
            place = before - distance
            total = among_average
            if 0 <= place < size:
                total = total + (rows - neighbour) @ first[place]
            result: Matrix = np.maximum(total, 0) + shown
            return result

        total = sum(seen_at(place - before) @ second[place] for place in range(size))
        result: Matrix = np.maximum(total + layers[f"b2_{size}"], 0) + seen_at(0)
        return result
