"""What a model that makes vectors of texts offers.

The module imports no library of the extra `embeddings`: a process without them searches by words.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Vectors: TypeAlias = "NDArray[np.float16]"
"""One row for each text, of length 1."""


class EmbedderUnavailable(Exception):
    """The model cannot be loaded: a package is missing, or has other weights."""


class Embedder(Protocol):
    """A loaded model; safe to use from several threads.

    Attributes:
        name: of the model with its version and dimension. Two models never share a name.
        dimension: length of a vector.
    """

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vector of each text; texts without a word of the model get the same vector.

        The vector of a text does not depend on the texts beside it. Memory is bounded: long lists
        are embedded in parts.
        """


def written(vector: "NDArray[np.float16]") -> str:
    """Return a vector as pgvector reads it: `[0.5,-1]`."""
    return "[" + ",".join(map(repr, vector.tolist())) + "]"
