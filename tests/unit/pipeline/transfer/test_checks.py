import hashlib
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transfer.checks import (
    Chunk,
    ChunkCorrupt,
    FileCheck,
    ManifestIncomplete,
    StagingTruncated,
    etag_matches,
    multipart_etag,
)
from schemas.errors import ErrorCode, FileDigestMismatch
from tests.unit.pipeline.transfer.staging import chunks_of, crc32c, md5, sha256


def manifest(content: bytes, *, chunk_size: int, has_crc32c: bool = True) -> list[Chunk]:
    chunks = chunks_of(content, chunk_size=chunk_size)
    return chunks if has_crc32c else [replace(chunk, crc32c=None) for chunk in chunks]


def check_of(content: bytes, *, chunk_size: int, has_crc32c: bool) -> FileCheck:
    return FileCheck.against(
        manifest(content, chunk_size=chunk_size, has_crc32c=has_crc32c),
        chunk_size=chunk_size,
        size_bytes=len(content),
    )


@given(st.binary(max_size=300), st.integers(1, 80), st.lists(st.integers(0, 300)), st.booleans())
def test_intact_bytes_pass_in_blocks_of_any_size(
    content: bytes,
    chunk_size: int,
    cuts: list[int],
    has_crc32c: bool,  # noqa: FBT001  # Hypothesis passes it
) -> None:
    check = check_of(content, chunk_size=chunk_size, has_crc32c=has_crc32c)
    ends = sorted({0, len(content), *(min(cut, len(content)) for cut in cuts)})
    for start, end in pairwise(ends):
        check.update(content[start:end])

    assert check.finish(declared=sha256(content).upper()) == sha256(content)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 80), st.booleans(), st.data())
def test_a_flipped_bit_is_reported_with_its_chunk(
    content: bytes,
    chunk_size: int,
    has_crc32c: bool,  # noqa: FBT001  # Hypothesis passes it
    data: st.DataObject,
) -> None:
    at = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    check = check_of(content, chunk_size=chunk_size, has_crc32c=has_crc32c)

    with pytest.raises(ChunkCorrupt, match=f"chunk {at // chunk_size} ") as found:
        check.update(bytes(damaged))

    assert found.value.code is ErrorCode.STAGING_CORRUPT


def test_the_error_of_a_corrupt_chunk_names_the_digest_algorithm() -> None:
    with pytest.raises(ChunkCorrupt) as by_crc32c:
        check_of(b"123456789", chunk_size=9, has_crc32c=True).update(b"12345678X")
    with pytest.raises(ChunkCorrupt) as by_sha256:
        check_of(b"123456789", chunk_size=9, has_crc32c=False).update(b"12345678X")

    # The first is the check value of RFC 9260's polynomial.
    damaged = crc32c(b"12345678X").hex()
    assert (
        str(by_crc32c.value)
        == f"chunk 0 was acknowledged with crc32c e3069283 and now has {damaged}"
    )
    expected, actual = sha256(b"123456789"), sha256(b"12345678X")
    assert (
        str(by_sha256.value)
        == f"chunk 0 was acknowledged with sha256 {expected} and now has {actual}"
    )


@given(st.binary(min_size=1, max_size=300), st.integers(1, 80), st.integers(0, 300), st.booleans())
def test_a_check_continues_from_the_state_of_another_check(
    content: bytes,
    chunk_size: int,
    cut: int,
    has_crc32c: bool,  # noqa: FBT001  # Hypothesis passes it
) -> None:
    cut = min(cut, len(content))
    first = check_of(content, chunk_size=chunk_size, has_crc32c=has_crc32c)
    first.update(content[:cut])
    state = first.state()
    is_between_chunks = cut % chunk_size == 0 or cut == len(content)
    assert (state is not None) is (has_crc32c or is_between_chunks)
    if state is None:
        return
    second = check_of(content, chunk_size=chunk_size, has_crc32c=has_crc32c)

    assert second.continue_from(state)
    second.update(content[cut:])

    assert second.finish(declared=None) == sha256(content)


@given(st.binary(min_size=2, max_size=300), st.integers(1, 80), st.data())
def test_a_continued_check_verifies_the_whole_of_an_unfinished_chunk(
    content: bytes, chunk_size: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(content) - 1))
    begins = cut // chunk_size * chunk_size
    at = data.draw(st.integers(begins, min(begins + chunk_size, len(content)) - 1))
    damaged = bytearray(content)
    damaged[at] ^= 1
    first = check_of(content, chunk_size=chunk_size, has_crc32c=True)
    first.update(bytes(damaged[:cut]))
    state = first.state()
    assert state is not None
    second = check_of(content, chunk_size=chunk_size, has_crc32c=True)
    assert second.continue_from(state)

    with pytest.raises(ChunkCorrupt, match=f"chunk {at // chunk_size} "):
        second.update(bytes(damaged[cut:]))


def test_a_state_that_does_not_fit_is_rejected() -> None:
    content = b"0123456789"
    first = check_of(content, chunk_size=4, has_crc32c=True)
    first.update(content[:6])
    state = first.state()
    assert state is not None
    of_other_manifest = check_of(content, chunk_size=4, has_crc32c=False)
    of_other_place = check_of(content, chunk_size=4, has_crc32c=True)

    assert not of_other_manifest.continue_from(state)
    assert not of_other_place.continue_from(replace(state, taken=5))
    for check in (of_other_manifest, of_other_place):
        check.update(content)
        assert check.finish(declared=None) == sha256(content)


def test_a_file_of_intact_chunks_with_another_digest_than_declared_is_refused() -> None:
    check = FileCheck.against(manifest(b"content", chunk_size=4), chunk_size=4, size_bytes=7)
    check.update(b"content")

    with pytest.raises(FileDigestMismatch) as refused:
        check.finish(declared=hashlib.sha256(b"other").hexdigest())

    assert refused.value.code is ErrorCode.FILE_DIGEST_MISMATCH


def test_a_check_cannot_finish_before_the_last_byte() -> None:
    check = FileCheck.against(manifest(b"content", chunk_size=4), chunk_size=4, size_bytes=7)
    check.update(b"conten")

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
def test_an_incomplete_manifest_is_refused_before_any_byte_is_read(chunks: list[Chunk]) -> None:
    with pytest.raises(ManifestIncomplete):
        FileCheck.against(chunks, chunk_size=4, size_bytes=10)


def test_a_file_without_a_manifest_is_checked_by_its_size() -> None:
    check = FileCheck.of_any(size_bytes=7)
    check.update(b"con")
    check.update(b"tent")

    assert check.finish(declared=None) == hashlib.sha256(b"content").hexdigest()


def test_a_multipart_etag_is_the_md5_of_the_md5s_and_the_number_of_parts() -> None:
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
def test_an_etag_of_the_parts_and_an_etag_of_the_whole_object_both_match(etag: str) -> None:
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
def test_another_etag_does_not_match(etag: str) -> None:
    assert not etag_matches(
        etag, part_md5s=[md5(b"one"), md5(b"two")], file_md5=lambda: md5(b"onetwo")
    )


def test_the_file_is_not_read_again_for_a_multipart_etag_or_a_single_part() -> None:
    def file_md5() -> bytes:
        pytest.fail("read the file again")

    assert etag_matches(multipart_etag([md5(b"one")]), part_md5s=[md5(b"one")], file_md5=file_md5)
    assert etag_matches(md5(b"one").hex(), part_md5s=[md5(b"one")], file_md5=file_md5)
    assert not etag_matches(md5(b"two").hex(), part_md5s=[md5(b"one")], file_md5=file_md5)
