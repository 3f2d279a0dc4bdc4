from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uploads.errors import ManifestMismatch
from gateway.uploads.finalize import check_declared
from gateway.uploads.queries import StoredChunk
from schemas.api.uploads import DeclaredChunk
from schemas.ids import UploadId
from schemas.policy.open_uploads import UploadIncomplete, missing_of

STORED = [
    StoredChunk(index=index, size=10, sha256=bytes([index] * 32), crc32c=None) for index in range(3)
]
DECLARED = [
    DeclaredChunk(index=chunk.index, size=chunk.size, sha256=chunk.sha256.hex()) for chunk in STORED
]


@given(st.sets(st.integers(0, 49)))
def test_every_chunk_that_is_not_stored_is_missing(present: set[int]) -> None:
    assert set(missing_of(present, chunk_count=50)) == set(range(50)) - present


def test_an_empty_file_has_no_missing_chunk() -> None:
    assert missing_of([], chunk_count=0) == []


def test_the_error_names_the_first_missing_chunks_and_counts_the_others() -> None:
    error = UploadIncomplete(UploadId(uuid4()), missing=range(100), chunk_count=200)

    assert "lacks 100 of 200 chunks: 0, 1, 2, " in str(error)
    assert str(error).endswith("18, 19 and 80 more")


def test_a_manifest_of_the_stored_chunks_in_order_is_accepted() -> None:
    check_declared(DECLARED, stored=STORED)


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        (DECLARED[:2], "2 chunks are declared, 3 are stored"),
        ([*DECLARED, DECLARED[0]], "4 chunks are declared, 3 are stored"),
        ([DECLARED[1], DECLARED[0], DECLARED[2]], "chunk 1 is declared in the place of 0"),
        ([DECLARED[0], DECLARED[0], DECLARED[2]], "chunk 0 is declared in the place of 1"),
        ([], "0 chunks are declared, 3 are stored"),
    ],
)
def test_a_manifest_with_other_chunks_or_another_order_is_refused(
    declared: list[DeclaredChunk], reason: str
) -> None:
    with pytest.raises(ManifestMismatch, match=reason):
        check_declared(declared, stored=STORED)


@pytest.mark.parametrize("changed", [{"size": 11}, {"sha256": "f" * 64}])
def test_the_error_names_the_chunk_that_differs(changed: dict[str, Any]) -> None:
    declared = [*DECLARED[:2], msgspec.structs.replace(DECLARED[2], **changed)]

    with pytest.raises(ManifestMismatch, match="chunk 2 is declared with"):
        check_declared(declared, stored=STORED)
