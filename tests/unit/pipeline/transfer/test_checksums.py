from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transfer.checksums import (
    Chunk,
    ChunkCorrupt,
    FileCheck,
    FileDigestMismatch,
    ManifestIncomplete,
    StagingTruncated,
    etag_matches,
    multipart_etag,
)
from schemas.errors import ErrorCode


def manifest(content: bytes, *, chunk_size: int) -> list[Chunk]:
    pieces = [content[at : at + chunk_size] for at in range(0, len(content), chunk_size)]
    return [
        Chunk(index, size_bytes=len(piece), sha256=hashlib.sha256(piece).digest())
        for index, piece in enumerate(pieces)
    ]


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


@given(st.binary(max_size=300), st.integers(1, 80), st.lists(st.integers(0, 300)))
def test_intact_bytes_pass_however_they_are_cut(
    content: bytes, chunk_size: int, cuts: list[int]
) -> None:
    check = FileCheck.against(
        manifest(content, chunk_size=chunk_size), chunk_size=chunk_size, size_bytes=len(content)
    )
    ends = sorted({0, len(content), *(min(cut, len(content)) for cut in cuts)})
    for start, end in pairwise(ends):
        check.update(memoryview(content)[start:end])

    sha256 = hashlib.sha256(content).hexdigest()
    assert check.finish(declared=sha256.upper()) == sha256


@given(st.binary(min_size=1, max_size=300), st.integers(1, 80), st.data())
def test_a_flipped_bit_is_found_in_the_chunk_that_has_it(
    content: bytes, chunk_size: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    check = FileCheck.against(
        manifest(content, chunk_size=chunk_size), chunk_size=chunk_size, size_bytes=len(content)
    )

    with pytest.raises(ChunkCorrupt, match=f"chunk {at // chunk_size} ") as found:
        check.update(memoryview(damaged))

    assert found.value.code is ErrorCode.STAGING_CORRUPT


def test_intact_chunks_of_another_file_than_declared_are_refused() -> None:
    check = FileCheck.against(manifest(b"content", chunk_size=4), chunk_size=4, size_bytes=7)
    check.update(memoryview(b"content"))

    with pytest.raises(FileDigestMismatch) as refused:
        check.finish(declared=hashlib.sha256(b"other").hexdigest())

    assert refused.value.code is ErrorCode.FILE_DIGEST_MISMATCH


def test_a_file_cannot_finish_before_its_last_byte() -> None:
    check = FileCheck.against(manifest(b"content", chunk_size=4), chunk_size=4, size_bytes=7)
    check.update(memoryview(b"conten"))

    with pytest.raises(StagingTruncated):
        check.finish(declared=None)


WHOLE = manifest(b"0123456789", chunk_size=4)


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([], id="none"),
        pytest.param(WHOLE[:-1], id="last missing"),
        pytest.param(WHOLE[1:], id="first missing"),
        pytest.param([WHOLE[0], WHOLE[2]], id="gap"),
        pytest.param([WHOLE[1], WHOLE[0], WHOLE[2]], id="out of order"),
        pytest.param([WHOLE[0], *WHOLE], id="twice"),
        pytest.param([*WHOLE, Chunk(3, size_bytes=1, sha256=b"")], id="too many"),
        pytest.param([WHOLE[0], Chunk(1, size_bytes=3, sha256=b""), WHOLE[2]], id="short"),
    ],
)
def test_a_manifest_with_a_hole_is_refused_before_any_byte_is_read(chunks: list[Chunk]) -> None:
    with pytest.raises(ManifestIncomplete):
        FileCheck.against(chunks, chunk_size=4, size_bytes=10)


def test_a_file_without_a_manifest_is_only_measured_and_digested() -> None:
    check = FileCheck.of_any(size_bytes=7)
    check.update(b"con")
    check.update(memoryview(b"tent"))

    assert check.finish(declared=None) == hashlib.sha256(b"content").hexdigest()


def test_the_etag_of_parts_is_the_md5_of_their_md5s_and_their_number() -> None:
    expected = hashlib.md5(md5(b"one") + md5(b"two"), usedforsecurity=False).hexdigest()

    assert multipart_etag([md5(b"one"), md5(b"two")]) == f"{expected}-2"


@pytest.mark.parametrize(
    "etag",
    [
        multipart_etag([md5(b"one"), md5(b"two")]),
        f'"{multipart_etag([md5(b"one"), md5(b"two")])}"',
        md5(b"onetwo").hex(),
        f'"{md5(b"onetwo").hex().upper()}"',
    ],
)
def test_both_forms_of_an_etag_are_recognised(etag: str) -> None:
    assert etag_matches(etag, part_md5s=[md5(b"one"), md5(b"two")], file_md5=lambda: md5(b"onetwo"))


@pytest.mark.parametrize(
    "etag",
    [
        "",
        multipart_etag([md5(b"two"), md5(b"one")]),
        multipart_etag([md5(b"one")]),
        md5(b"other").hex(),
    ],
)
def test_another_etag_is_not(etag: str) -> None:
    assert not etag_matches(
        etag, part_md5s=[md5(b"one"), md5(b"two")], file_md5=lambda: md5(b"onetwo")
    )


def test_the_whole_file_is_not_read_again_for_the_usual_form_nor_for_one_part() -> None:
    def file_md5() -> bytes:
        pytest.fail("read the file again")

    assert etag_matches(multipart_etag([md5(b"one")]), part_md5s=[md5(b"one")], file_md5=file_md5)
    assert etag_matches(md5(b"one").hex(), part_md5s=[md5(b"one")], file_md5=file_md5)
    assert not etag_matches(md5(b"two").hex(), part_md5s=[md5(b"one")], file_md5=file_md5)
