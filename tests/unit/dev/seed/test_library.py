from collections import Counter

import pytest

from dev.seed.library import CHUNK_MAX, LibraryExtent
from schemas.settings import EmbeddingSettings


def extent(passages: int) -> LibraryExtent:
    return LibraryExtent(passages=passages, settings=EmbeddingSettings())


@pytest.mark.parametrize("passages", [100, 10_000, 1_000_000])
def test_a_small_tenant_has_a_hundredth_of_the_passages(passages: int) -> None:
    owned = Counter[int]()
    for chunk in extent(passages).chunks:
        owned[chunk.tenant] += chunk.passages

    assert owned.total() == passages
    assert owned.pop(0) == passages * 80 // 100
    assert set(owned.values()) == {passages // 100}
    assert owned.keys() == set(range(1, 21))


def test_a_chunk_is_short_enough_for_one_transaction() -> None:
    assert max(chunk.passages for chunk in extent(1_234_500).chunks) <= CHUNK_MAX


def test_the_chunks_have_different_numbers() -> None:
    numbers = [chunk.number for chunk in extent(600_000).chunks]

    assert numbers == list(range(300))
